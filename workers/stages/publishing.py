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
from workers.data.sources import count_sources
from workers.data.stopping import Stopped
from workers.selection.compare import jaccard
from workers.stages import measuring
from workers.stages.scores import keep_scores, suspects_counted
from workers.statistics import subset
from workers.statistics.conflict import conflict_statistics
from workers.statistics.subset import thinned_curve

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import SelectionSpec
    from app.core.db.tables import Json
    from workers.gradients.shards import Scored
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Selection
    from workers.stages.candidates import Candidates
    from workers.stages.reading import Reading

ROWS_NAMED = 100
"""Row numbers of each reason that a job's own document names; all are at `/jobs/{id}/rejected`."""


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that a job publishes.

    Attributes:
        reading: The dataset.
        candidates: What may be picked, and why other rows may not.
        chosen: The selections by label, `main` among them; their indices are places among the candidates.
        repeats: Further runs of the baselines that draw at random, by label.
        selection: The requested selection.
        source_column: Column that says where a row comes from, or None.
        sketches: Content key.
        scored: What the sketches are of; None where that was not kept.
        computed: Samples whose sketches were computed for this job; the others' were there, or another job's.
        limited: The limit of the request that kept samples from being scored, or None.
        seconds: Time of each stage so far.
    """

    reading: Reading
    candidates: Candidates
    chosen: Mapping[str, Selection]
    repeats: Mapping[str, Sequence[Selection]]
    selection: SelectionSpec
    source_column: str | None
    sketches: str
    scored: Scored | None
    computed: int
    limited: Limited | None
    seconds: dict[str, float]


def publish(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> None:
    """Write the rows, then commit the rest with the job's success.

    Raises:
        Stopped: The job was cancelled or lost meanwhile. Nothing of it is in Postgres.
    """
    began = time.monotonic()
    meter = heartbeat.enter(Stage.PUBLISHING, len(published.chosen[MAIN].indices), "picks")

    def watch(written: int) -> None:
        if heartbeat.should_stop():
            raise Stopped
        meter.at(written)

    statistics, picked = _statistics(context, heartbeat, published), published.chosen[MAIN].indices
    Statistics.model_validate({"job_id": heartbeat.lease.id, **statistics})
    _keep_rows(context, heartbeat.lease.id, published, watch)
    _keep_digests(context, heartbeat.lease.id, published)
    keep_scores(context, heartbeat, published.reading, published.candidates, published.candidates.rows[picked])
    with context.sessions() as session:
        result = _result(published, time.monotonic() - began)
        JobResult.model_validate(result)
        # Before the picks: whoever else writes to the job waits for this transaction from here on.
        if not leases.finish(
            session, heartbeat.lease, State.SUCCEEDED, result=result, stage=None, progress=None, plan=None
        ):
            session.rollback()
            raise Stopped
        for label, selection in published.chosen.items():
            runs = [selection, *published.repeats.get(label, ())]
            head = Head(
                label=label,
                method=published.selection.method if label == MAIN else label,
                log_det=float(selection.log_det[-1]),
                conflicts=conflict_statistics(selection),
                curve=thinned_curve(runs),
            )
            picks = _picks(selection, published.candidates.rows)
            selections.store(session, heartbeat.lease.id, head, picks, context.settings.chunk_rows)
        rejected = {str(reason): rows for reason, rows in published.candidates.rejected.items()}
        selections.store_rejected(session, heartbeat.lease.id, rejected, published.candidates.filtered)
        selections.store_statistics(session, heartbeat.lease.id, statistics)
        _note_times(session, context, published, result["seconds"])
        session.commit()


def _note_times(session: Session, context: WorkerContext, published: Published, seconds: Mapping[str, float]) -> None:
    """Keep how long selecting and publishing took, for the estimates of later jobs."""
    rows, picks = len(published.candidates.usable), len(published.chosen[MAIN].indices)
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
        write_rows(
            snapshot, published.candidates.rows[published.chosen[MAIN].indices], written, context.settings, watch
        )
        picked = replace(snapshot, path=written, parts=(), compression=None, bytes=written.stat().st_size)
        write_excerpts(picked, published.reading.corpus.shape, _ranked(published), excerpts, context.settings)
        put_checked(context.artifacts, excerpts_name(job_id), excerpts)
        put_checked(context.artifacts, rows_name(job_id, snapshot.format), written)
    finally:
        written.unlink(missing_ok=True)
        excerpts.unlink(missing_ok=True)


def _keep_digests(context: WorkerContext, job_id: uuid.UUID, published: Published) -> None:
    """Keep which rows the picks are, for jobs over other pools that have them too."""
    corpus, rows = published.reading.corpus, published.candidates.rows[published.chosen[MAIN].indices]
    digests = corpus.digests[np.searchsorted(corpus.rows, rows)]
    context.artifacts.write(picks_name(job_id), np.ascontiguousarray(digests).tobytes())


def _ranked(published: Published) -> Iterator[Json]:
    """What is known of each pick besides its text, in file order."""
    main, candidates = published.chosen[MAIN], published.candidates
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
            "suspect": bool(suspect[main.indices[place]]),
        }


def _statistics(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> Json:
    """The statistics for the figures.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    main, corpus = published.chosen[MAIN], published.reading.corpus
    tokens = corpus.lengths[np.searchsorted(corpus.rows, published.candidates.rows)]
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
    }


def _result(published: Published, publishing_s: float) -> Json:
    main = published.chosen[MAIN]
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
        "normalize": published.selection.model_dump()["normalize"],
        "filtered": {reason: len(rows) for reason, rows in published.candidates.filtered.items()},
        "suspects": suspects_counted(published.candidates, main.indices),
        "tokens": corpus.tokens,
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
        "baselines": {
            label: _baseline(main, [one, *published.repeats.get(label, ())])
            for label, one in published.chosen.items()
            if label != MAIN
        },
        "versions": {name: version(name) for name in ("spice-select", "torch", "transformers")},
    }


def _scored_rows(published: Published) -> int:
    return len(published.reading.corpus) if published.limited is None else published.limited.rows_scored


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


def _baseline(main: Selection, runs: Sequence[Selection]) -> Json:
    log_det = subset.spread([float(run.log_det[-1]) for run in runs])
    return {
        "runs": len(runs),
        "log_det": log_det["mean"],
        "log_det_std": log_det["std"],
        "mean_conflict": float(np.mean([run.conflicts.mean() for run in runs])),
        "overlap": float(np.mean([jaccard(main.indices, run.indices) for run in runs])),
    }


def _picks(selection: Selection, rows: NDArray[np.int64]) -> Picks:
    return Picks(
        indices=rows[selection.indices].tolist(),
        marginal_gains=selection.marginal_gains.tolist(),
        epsilons=selection.epsilons.tolist(),
        conflicts=selection.conflicts.tolist(),
        log_det=selection.log_det.tolist(),
    )
