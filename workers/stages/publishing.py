"""The last stage: write the picked rows as files, and everything else in one transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.core.contracts.job_result import JobResult
from app.core.contracts.statistics import Statistics
from app.core.db import selections
from app.core.db.selections import MAIN, Head, Picks
from app.core.db.tables import Stage, State
from app.core.lifecycle import leases, measurements
from app.core.lifecycle.measurements import Took
from app.core.storage import put_checked
from workers.data.stopping import Stopped
from workers.stages import measuring
from workers.stages.published_files import known_share, written_files
from workers.stages.published_result import result_of
from workers.stages.published_statistics import league_of, statistics_of
from workers.statistics.conflict import conflict_statistics
from workers.statistics.subset import thinned_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

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

    statistics = statistics_of(context, heartbeat, published)
    Statistics.model_validate({"job_id": heartbeat.lease.id, **statistics})
    with written_files(context.settings, heartbeat.lease.id, published, heartbeat.should_stop, watch) as files:
        for name, file in files.items():
            put_checked(context.artifacts, name, file)
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


def _picks(selection: Selection, rows: NDArray[np.int64], stability: NDArray[np.float64] | None) -> Picks:
    return Picks(
        indices=rows[selection.indices].tolist(),
        marginal_gains=selection.marginal_gains.tolist(),
        epsilons=selection.epsilons.tolist(),
        conflicts=selection.conflicts.tolist(),
        log_det=selection.log_det.tolist(),
        stability=None if stability is None else [known_share(share) for share in stability[selection.indices]],
        weights=None if selection.weights is None else selection.weights.tolist(),
    )
