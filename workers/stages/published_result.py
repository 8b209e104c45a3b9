"""The result that a job's document shows."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from app.core.db.selections import MAIN
from app.core.db.tables import Stage
from workers.selection.compare import jaccard
from workers.stages.purposes import reached
from workers.stages.scores import suspects_counted
from workers.statistics import subset
from workers.statistics.schedule import schedule_found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.selection_request import Normalize, SelectionSpec
    from app.core.db.tables import Json
    from workers.selection import Constraints, Selection
    from workers.stages.published import Published

ROWS_NAMED = 100
"""Row numbers of each reason that a job's own document names; all are at `/jobs/{id}/rejected`."""


def result_of(published: Published, publishing_s: float) -> Json:
    """The result.

    Args:
        published: What the job publishes.
        publishing_s: Seconds that publishing has taken.
    """
    main = published.main
    guarantees = main.guarantees
    corpus = published.reading.corpus
    return {
        "rows_total": corpus.rows_total,
        "rows_usable": len(published.candidates.usable),
        "selected": len(main.indices),
        "truncated": corpus.truncated,
        "rejected": [
            {"reason": reason, "count": len(rows), "rows": rows[:ROWS_NAMED], "message": corpus.said.get(reason)}
            for reason, rows in sorted(published.candidates.rejected.items())
        ],
        "ignored_columns": {name: count for name, count in corpus.ignored.items() if name != published.source_column},
        "files": _files(published),
        "normalize": plain_normalize(published.selection.normalize),
        "representative": published.selection.own_weight,
        "filtered": {reason: len(rows) for reason, rows in published.candidates.filtered.items()},
        "suspects": suspects_counted(published.candidates, main.indices),
        "tokens": corpus.tokens,
        "tokens_selected": int(published.objective.tokens[main.indices].sum()),
        **_purposes(published),
        "decontamination": published.decontamination,
        "extension": _extension(published),
        "log_det": float(main.log_det[-1]),
        "alpha": main.alpha,
        "stop_reason": main.stop_reason,
        "certificate": {
            "value": guarantees.certificate,
            "optimum_upper_bound": guarantees.optimum_upper_bound,
            "additive_bound": guarantees.additive_bound,
            "curvature": guarantees.curvature,
            "curvature_factor": guarantees.curvature_factor,
            "epsilon_bound_violations": guarantees.epsilon_bound_violations,
        },
        "partitions": published.selection.partitions,
        "partitions_guarantee": _partitions_guarantee(published.selection, published.chosen.limits, len(main.indices)),
        "mean_conflict": float(main.conflicts.mean()),
        "format": published.reading.snapshot.format,
        "columns": dict(corpus.shape.columns),
        "fingerprint": published.reading.snapshot.fingerprint,
        "model_revision": published.reading.model.revision,
        "sketches": published.sketches,
        "left_out": None if published.scored is None else list(published.scored.left_out),
        "weights_stored_as": None if published.scored is None else published.scored.weights_stored_as,
        "sketches_reused": published.computed == 0,
        "gradients": {
            "computed": published.computed,
            "reused": max(_scored_rows(published) - published.computed, 0),
        },
        "schedule": None if published.windows is None else schedule_found(published.windows),
        "limited": None if published.limited is None else published.limited.model_dump(),
        "seconds": {**published.seconds, Stage.PUBLISHING: round(publishing_s, 3)},
        "baselines_left_out": dict(published.chosen.left_out),
        "baselines": {
            label: _baseline(main, [one, *published.chosen.repeats.get(label, ())])
            for label, one in published.chosen.selections.items()
            if label != MAIN
        },
        "versions": {name: version(name) for name in ("spice-select", "torch", "transformers")},
    }


def _extension(published: Published) -> Json | None:
    """What was added to the picks of an earlier job, and what that gained."""
    kept, log_det = published.candidates.kept, published.main.log_det
    if kept is None:
        return None
    before = float(log_det[len(kept.rows) - 1]) if len(kept.rows) else 0.0
    return {
        "job": str(kept.job),
        "rows_kept": len(kept.rows),
        "rows_added": len(log_det) - len(kept.rows),
        "rows_gone": len(kept.gone),
        "gone": kept.gone[:ROWS_NAMED].tolist(),
        "log_det_before": before,
        "log_det_after": float(log_det[-1]),
        "log_det_gained": float(log_det[-1]) - before,
    }


def _scored_rows(published: Published) -> int:
    return len(published.reading.corpus) if published.limited is None else published.limited.rows_scored


def _purposes(published: Published) -> Json:
    """What constraints, purposes, sweep and stability came to, as far as they were asked for."""
    chosen, main, objective = published.chosen, published.main, published.objective
    found: Json = {}
    limits, cost = chosen.limits, chosen.cost
    if limits is not None and limits.bind:
        found["constraints"] = {
            "log_det_lost": None if cost is None else cost.log_det,
            "kept_out": {} if cost is None else cost.kept_out,
            "each": {
                name: {"log_det_lost": one.log_det, "certificate": one.certificate, "kept_out": one.kept_out}
                for name, one in ({} if cost is None else cost.each).items()
            },
            "rows": {
                name: len(rows)
                for name, rows in (("include", limits.include), ("exclude", limits.exclude))
                if len(rows)
            },
            "sources": _sources_picked(limits, main),
        }
    for role, one in reached(
        objective.bearings, published.candidates.values, main.indices, published.selection.seed
    ).items():
        beside = published.beside[role]
        gradients = {"computed": beside.computed, "reused": max(beside.samples - beside.computed, 0)}
        found[role] = {
            **one,
            "fingerprint": beside.fingerprint,
            "sketches": beside.sketches,
            "gradients": gradients,
        }
    if chosen.sweep is not None:
        found["sweep"] = [
            {
                "conflict_penalty": one.point.conflict_penalty,
                "early_stop_ratio": one.point.early_stop_ratio,
                "alpha": one.point.alpha,
                "normalize": plain_normalize(one.normalize),
                "selected": one.point.k,
                "log_det": float(one.point.log_det[-1]) if one.point.k else 0.0,
                "mean_conflict": one.point.mean_conflict,
                "certificate": one.point.certificate,
                "shared": one.point.shared,
                "lacking": one.point.lacking,
            }
            for one in chosen.sweep
        ]
    if chosen.stability is not None:
        shares = chosen.stability.picked[main.indices]
        known = shares[~np.isnan(shares)]
        found["stability"] = {
            "sketches": chosen.stability.sketches,
            "bootstrap": chosen.stability.pools,
            "impossible": chosen.stability.impossible,
            "mean": float(known.mean()) if len(known) else None,
            "smallest": float(known.min()) if len(known) else None,
            "always": int((known == 1.0).sum()),
        }
    return found


def _sources_picked(limits: Constraints, main: Selection) -> Json:
    sources = limits.sources
    if sources is None:
        return {}
    picked = np.bincount(sources.of_row[main.indices], minlength=len(sources.names)).tolist()
    there = np.bincount(sources.of_row, minlength=len(sources.names)).tolist()
    least, most = sources.least.tolist(), sources.most.tolist()
    return {
        name: {"least": least[at], "most": most[at], "picked": picked[at], "candidates": there[at]}
        for at, name in enumerate(sources.names)
        if there[at]
    }


def _files(published: Published) -> list[Json] | None:
    """The files of a dataset of many, each with the number of its first row."""
    parts, corpus = published.reading.snapshot.parts, published.reading.corpus
    ends = [*corpus.starts[1:], corpus.rows_total]
    return (
        [
            {"uri": part.name, "first_row": start, "rows": end - start}
            for part, start, end in zip(parts, corpus.starts, ends, strict=True)
        ]
        or None
        if parts
        else None
    )


def _partitions_guarantee(asked: SelectionSpec, limits: Constraints | None, count: int) -> Json | None:
    """The guarantee of the random partition; docs/selection-proofs.md derives it.

    None where limits or prices are kept to: the best part's set, on which the proof rests, is not considered then.
    """
    if asked.partitions is None or asked.early_stop_ratio is not None or limits is not None:
        return None
    rho = 1.0 - (1.0 - 1.0 / count) ** count
    penalty = asked.conflict_penalty if asked.method == "spice" else 0.0
    return {"factor": rho / 2, "loss": rho * count * penalty}


def plain_normalize(normalize: Normalize) -> str | Json:
    """Lengths as a request names them."""
    return normalize if isinstance(normalize, str) else normalize.model_dump()


def _baseline(main: Selection, runs: Sequence[Selection]) -> Json:
    log_det = subset.spread([float(run.log_det[-1]) for run in runs])
    return {
        "runs": len(runs),
        "log_det": log_det["mean"],
        "log_det_std": log_det["std"],
        "mean_conflict": float(np.mean([run.conflicts.mean() for run in runs])),
        "overlap": float(np.mean([jaccard(main.indices, run.indices) for run in runs])),
    }
