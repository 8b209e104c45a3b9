"""The last stage: write the picked rows as files, and everything else in one transaction."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.job_result import JobResult
from app.core.contracts.row_scores import GAIN_AT_END, NEAREST, NEAREST_COSINE
from app.core.contracts.statistics import Statistics
from app.core.db import selections
from app.core.db.selections import MAIN, Head, Picks
from app.core.db.tables import Stage, State
from app.core.lifecycle import leases, measurements
from app.core.lifecycle.measurements import Took
from app.core.storage import excerpts_name, picks_name, put_checked, rows_name
from workers.data.excerpts import write_excerpts
from workers.data.export import write_rows
from workers.data.stopping import Stopped
from workers.stages import measuring
from workers.stages.published_result import result_of
from workers.stages.published_statistics import league_of, statistics_of
from workers.stages.scores import keep_scores
from workers.statistics.conflict import conflict_statistics
from workers.statistics.passed_over import passed_over
from workers.statistics.subset import thinned_curve

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from app.core.db.tables import Json
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Selection
    from workers.stages.published import Published


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

    statistics, picked = statistics_of(context, heartbeat, published), published.main.indices
    Statistics.model_validate({"job_id": heartbeat.lease.id, **statistics})
    _keep_rows(context, heartbeat.lease.id, published, watch)
    _keep_digests(context, heartbeat.lease.id, published)
    keep_scores(
        context,
        heartbeat,
        published.reading,
        published.candidates,
        published.candidates.rows[picked],
        _further_scores(published, heartbeat.should_stop),
        published.source_column,
    )
    table = league_of(context, heartbeat, published)
    with context.sessions() as session:
        result = {**result_of(published, time.monotonic() - began), "league": table}
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
            picks = _picks(selection, published.candidates.rows, published.stability if label == MAIN else None)
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
    if published.windows is not None:
        return  # it was selected while gradients were computed
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
        shape, column = published.reading.corpus.shape, published.source_column
        write_excerpts(picked, shape, _ranked(published), excerpts, context.settings, column)
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
    main, candidates, stability = published.main, published.candidates, published.stability
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


def _further_scores(published: Published, should_stop: Callable[[], bool]) -> dict[str, NDArray[np.float64]]:
    """What the table of scores has besides figures of each row: what methods need, cosines, and what was passed over.

    Raises:
        Stopped: `should_stop` said so.
    """
    found = {f"{role}_cosine": cosines for role, cosines in published.objective.bearings.cosines.items()}
    stability, candidates, main = published.stability, published.candidates, published.main
    left = passed_over(published.objective.values, main.indices, main.alpha, should_stop)
    if left is not None:
        rank = np.nan_to_num(left.nearest).astype(np.int64)
        nearest = np.where(np.isnan(left.nearest), np.nan, candidates.rows[main.indices[rank]])
        found |= {GAIN_AT_END: left.gain, NEAREST: nearest, NEAREST_COSINE: left.cosine}
    if stability is not None:
        found["stability"] = stability
    whole = dict(published.figures)
    for name, values in found.items():
        whole[name] = np.full(len(candidates.usable), np.nan)
        whole[name][candidates.places] = values
    return whole


def _known(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


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
