"""The last stage: write the picked rows as files, and everything else in one transaction."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.job_result import JobResult, Limited
from app.core.contracts.statistics import Statistics
from app.core.db import selections
from app.core.db.selections import MAIN, Head, Picks
from app.core.db.tables import Stage, State
from app.core.lifecycle import leases, measurements
from app.core.lifecycle.measurements import Took
from app.core.storage import excerpts_name, picks_name, put_checked, rows_name
from workers.data.excerpts import write_excerpts
from workers.data.export import write_rows
from workers.data.row_marks import Wanted, read_marks
from workers.data.sources import count_sources
from workers.data.stopping import Stopped
from workers.selection.compare import jaccard
from workers.stages import measuring
from workers.stages.purposes import TARGET, reached
from workers.stages.scores import keep_scores, suspects_counted
from workers.statistics import subset
from workers.statistics.conflict import conflict_statistics
from workers.statistics.league import Ground, league
from workers.statistics.subset import thinned_curve

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import Normalize, SelectionSpec
    from app.core.db.tables import Json
    from workers.gradients.shards import Scored
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Constraints, Selection
    from workers.stages.candidates import Candidates
    from workers.stages.objective import Objective
    from workers.stages.reading import Reading
    from workers.stages.sensitivity import Chosen

ROWS_NAMED = 100
"""Row numbers of each reason that a job's own document names; all are at `/jobs/{id}/rejected`."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A dataset that was read beside the job's own.

    Attributes:
        fingerprint: Of its file.
        sketches: Content key.
        samples: Its usable rows.
        computed: Of these, those whose sketches were computed for this job.
    """

    fingerprint: str
    sketches: str
    samples: int
    computed: int


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that a job publishes.

    Attributes:
        reading: The dataset.
        candidates: What may be picked, and why other rows may not.
        objective: What was selected from, and within what.
        chosen: What was selected; indices are places among the candidates.
        figures: Figures of the usable rows that the methods need, by name.
        selection: The requested selection.
        source_column: Column that says where a row comes from, or None.
        sketches: Content key.
        scored: What the sketches are of; None where that was not kept.
        computed: Samples whose sketches were computed for this job; the others' were there, or another job's.
        limited: The limit of the request that kept samples from being scored, or None.
        beside: The datasets beside the job's own, by role.
        decontamination: The evaluation set that rows must not share text with; None without one.
        seconds: Time of each stage so far.
    """

    reading: Reading
    candidates: Candidates
    objective: Objective
    chosen: Chosen
    figures: Mapping[str, NDArray[np.float64]]
    selection: SelectionSpec
    source_column: str | None
    sketches: str
    scored: Scored | None
    computed: int
    limited: Limited | None
    beside: Mapping[str, Beside]
    decontamination: Json | None
    seconds: dict[str, float]

    @property
    def main(self) -> Selection:
        """The selection that was asked for."""
        return self.chosen.selections[MAIN]


def publish(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> None:
    """Write the rows, then commit the rest with the job's success.

    Raises:
        Stopped: The job was cancelled or lost meanwhile. Nothing of it is in Postgres.
    """
    began = time.monotonic()
    meter = heartbeat.enter(Stage.PUBLISHING, len(published.main.indices), "picks")
    heartbeat.tell()  # a stage that no other follows may end before the next heartbeat

    def watch(written: int) -> None:
        if heartbeat.should_stop():
            raise Stopped
        meter.at(written)

    statistics, picked = _statistics(context, heartbeat, published), published.main.indices
    Statistics.model_validate({"job_id": heartbeat.lease.id, **statistics})
    _keep_rows(context, heartbeat.lease.id, published, watch)
    _keep_digests(context, heartbeat.lease.id, published)
    keep_scores(
        context,
        heartbeat,
        published.reading,
        published.candidates,
        published.candidates.rows[picked],
        _further_scores(published),
    )
    table = _league(context, heartbeat, published)
    with context.sessions() as session:
        result = {**_result(published, time.monotonic() - began), "league": table}
        JobResult.model_validate(result)
        # Before the picks: whoever else writes to the job waits for this transaction from here on.
        if not leases.finish(
            session, heartbeat.lease, State.SUCCEEDED, result=result, stage=None, progress=None, plan=None
        ):
            session.rollback()
            raise Stopped
        for label, selection in published.chosen.selections.items():
            runs = [selection, *published.chosen.repeats.get(label, ())]
            head = Head(
                label=label,
                method=published.selection.method if label == MAIN else label,
                log_det=float(selection.log_det[-1]),
                conflicts=conflict_statistics(selection),
                curve=thinned_curve(runs),
            )
            picks = _picks(selection, published.candidates.rows, _stability(published) if label == MAIN else None)
            selections.store(session, heartbeat.lease.id, head, picks, context.settings.chunk_rows)
        rejected = {str(reason): rows for reason, rows in published.candidates.rejected.items()}
        selections.store_rejected(session, heartbeat.lease.id, rejected, published.candidates.filtered)
        selections.store_statistics(session, heartbeat.lease.id, statistics)
        _note_times(session, context, published, result["seconds"])
        session.commit()


def _note_times(session: Session, context: WorkerContext, published: Published, seconds: Mapping[str, float]) -> None:
    """Keep how long selecting and publishing took, for the estimates of later jobs."""
    rows, picks = len(published.candidates.usable), len(published.main.indices)
    dim = int(published.candidates.values.shape[1])
    for stage, kind, size in (
        (Stage.SELECTING, measuring.of_selecting(context, published.selection, dim), measuring.selecting_size),
        (Stage.PUBLISHING, measuring.of_publishing(dim), measuring.publishing_size),
    ):
        took = Took(rows, published.reading.corpus.tokens, size(rows, picks, dim), seconds[stage])
        measurements.note(session, kind, took)


def _keep_rows(context: WorkerContext, job_id: uuid.UUID, published: Published, watch: Callable[[int], None]) -> None:
    """Write the picked rows on this machine, and move the files into the store, each whole or not at all."""
    snapshot = published.reading.snapshot
    directory = context.settings.cache_path / "rows"
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f".{job_id}-{secrets.token_hex(4)}.{snapshot.format}"
    excerpts = written.with_suffix(".excerpts")
    try:
        write_rows(snapshot, published.candidates.rows[published.main.indices], written, context.settings, watch)
        picked = replace(snapshot, path=written, parts=(), compression=None, bytes=written.stat().st_size)
        write_excerpts(picked, published.reading.corpus.shape, _ranked(published), excerpts, context.settings)
        put_checked(context.artifacts, excerpts_name(job_id), excerpts)
        put_checked(context.artifacts, rows_name(job_id, snapshot.format), written)
    finally:
        written.unlink(missing_ok=True)
        excerpts.unlink(missing_ok=True)


def _keep_digests(context: WorkerContext, job_id: uuid.UUID, published: Published) -> None:
    """Keep which rows the picks are, for jobs over other pools that have them too."""
    corpus, rows = published.reading.corpus, published.candidates.rows[published.main.indices]
    digests = corpus.digests[np.searchsorted(corpus.rows, rows)]
    context.artifacts.write(picks_name(job_id), np.ascontiguousarray(digests).tobytes())


def _ranked(published: Published) -> Iterator[Json]:
    """What is known of each pick besides its text, in file order."""
    main, candidates, stability = published.main, published.candidates, _stability(published)
    suspect = candidates.suspect[candidates.places]
    rows = published.candidates.rows[main.indices]
    parts, starts = published.reading.snapshot.parts, published.reading.corpus.starts
    for place in np.argsort(rows).tolist():
        yield {
            "rank": place + 1,
            "index": int(rows[place]),
            **({"file": parts[int(np.searchsorted(starts, rows[place], side="right")) - 1].name} if parts else {}),
            "marginal_gain": float(main.marginal_gains[place]),
            "epsilon": float(main.epsilons[place]),
            "conflict": float(main.conflicts[place]),
            **({} if main.weights is None else {"weight": float(main.weights[place])}),
            "suspect": bool(suspect[main.indices[place]]),
            **({} if stability is None else {"stability": _known(stability[main.indices[place]])}),
        }


def _statistics(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> Json:
    """The statistics for the figures.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    main, corpus, tokens = published.main, published.reading.corpus, published.objective.tokens
    counted = None
    if published.source_column is not None:
        candidates, picked = np.zeros((2, corpus.rows_total), dtype=np.bool_)
        candidates[published.candidates.rows] = True
        picked[published.candidates.rows[main.indices]] = True
        counts = count_sources(
            published.reading.snapshot,
            context.settings,
            published.source_column,
            candidates,
            picked,
            heartbeat.should_stop,
        )
        counted = subset.sources(published.source_column, counts)
    wanted = published.selection
    return {
        "conflict_before_after": subset.conflict_before_after(
            published.candidates.values, main.indices, wanted.seed, heartbeat.should_stop
        ),
        "lengths": subset.lengths(tokens, main.indices),
        "sources": counted,
        "epsilon_conflict": subset.epsilon_conflict(main),
        "early_stop": subset.early_stop(main, wanted.method, wanted.early_stop_ratio),
        **_sensitivity(published),
    }


def _sensitivity(published: Published) -> Json:
    """The curves of a sweep, and how many picks are how sure."""
    found: Json = {}
    if published.chosen.sweep is not None:
        found["sweep"] = [
            {
                "conflict_penalty": one.point.conflict_penalty,
                "early_stop_ratio": one.point.early_stop_ratio,
                "alpha": one.point.alpha,
                "normalize": plain_normalize(one.normalize),
                "selected": one.point.k,
                "certificate": one.point.certificate,
                "shared": one.point.shared,
                **subset.short_curve(one.point.log_det),
            }
            for one in published.chosen.sweep
        ]
    stability = _stability(published)
    if stability is not None:
        shares = stability[published.main.indices]
        found["stability"] = np.histogram(shares[~np.isnan(shares)], bins=10, range=(0.0, 1.0))[0].tolist()
    return found


def _stability(published: Published) -> NDArray[np.float64] | None:
    """Share of the reselections that pick each candidate, NaN where none had it; None where none was asked for."""
    found = published.chosen.stability
    return None if found is None else found.picked


def _further_scores(published: Published) -> dict[str, NDArray[np.float64]]:
    """What the table of scores has besides figures of each row: what methods need, cosines, and stability."""
    found = {f"{role}_cosine": cosines for role, cosines in published.objective.bearings.cosines.items()}
    stability, candidates = _stability(published), published.candidates
    if stability is not None:
        found["stability"] = stability
    whole = dict(published.figures)
    for name, values in found.items():
        whole[name] = np.full(len(candidates.usable), np.nan)
        whole[name][candidates.places] = values
    return whole


def _known(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


def _league(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> list[Json]:
    """The methods side by side.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    chosen, candidates, marks = published.chosen, published.candidates, None
    if published.source_column is not None and len(chosen.selections) > 1:
        wanted, reading = Wanted(source=published.source_column), published.reading
        marks = read_marks(reading.snapshot, reading.corpus.shape, context.settings, wanted, heartbeat.should_stop)
    target = published.objective.bearings.directions.get(TARGET)
    ground = Ground(
        sketches=candidates.values,
        tokens=published.objective.tokens,
        target=None if target is None else target.values,
        names=() if marks is None else marks.names,
        source=None if marks is None else marks.source[candidates.rows],
    )
    method = published.selection.method
    runs = {
        method if label == MAIN else label: [one, *chosen.repeats.get(label, ())]
        for label, one in chosen.selections.items()
    }
    return league(runs, method, ground)


def _result(published: Published, publishing_s: float) -> Json:
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
        "filtered": {reason: len(rows) for reason, rows in published.candidates.filtered.items()},
        "suspects": suspects_counted(published.candidates, main.indices),
        "tokens": corpus.tokens,
        "tokens_selected": int(published.objective.tokens[main.indices].sum()),
        **_purposes(published),
        "decontamination": published.decontamination,
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
        "partitions_guarantee": _partitions_guarantee(published.selection, len(main.indices)),
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


def _scored_rows(published: Published) -> int:
    return len(published.reading.corpus) if published.limited is None else published.limited.rows_scored


def _purposes(published: Published) -> Json:
    """What constraints, purposes, sweep and stability came to, as far as they were asked for."""
    chosen, main, objective = published.chosen, published.main, published.objective
    found: Json = {}
    if chosen.cost is not None and chosen.limits is not None:
        found["constraints"] = {
            "log_det_lost": chosen.cost.log_det,
            "kept_out": chosen.cost.kept_out,
            "each": {
                name: {"log_det_lost": one.log_det, "certificate": one.certificate, "kept_out": one.kept_out}
                for name, one in chosen.cost.each.items()
            },
            "sources": _sources_picked(chosen.limits, main),
            "baselines_left_out": chosen.left_out,
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


def _partitions_guarantee(asked: SelectionSpec, count: int) -> Json | None:
    """The guarantee of the random partition; docs/selection-proofs.md derives it."""
    if asked.partitions is None or asked.early_stop_ratio is not None:
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


def _picks(selection: Selection, rows: NDArray[np.int64], stability: NDArray[np.float64] | None) -> Picks:
    return Picks(
        indices=rows[selection.indices].tolist(),
        marginal_gains=selection.marginal_gains.tolist(),
        epsilons=selection.epsilons.tolist(),
        conflicts=selection.conflicts.tolist(),
        log_det=selection.log_det.tolist(),
        stability=None if stability is None else [_known(share) for share in stability[selection.indices]],
        weights=None if selection.weights is None else selection.weights.tolist(),
    )
