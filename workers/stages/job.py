"""The stages of a job: read -> gradients -> select -> publish.

If sketches are missing, `run_job` makes shards for them and parks the job. The worker that ends the last shard wakes
the job; `run_job` then runs again, finds all sketches, selects and publishes. Reading and gradients store files under
names made of their content, so a job also finds the tokens and sketches that another job has made.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from app.core.db.tables import Job, Stage
from app.core.lifecycle import parking, proofs
from app.core.storage import StorageFailed, rows_prefix
from workers.data.sources import source_column
from workers.gradients.shards import ShardDamaged
from workers.runtime.context import current_context
from workers.runtime.failures import ProblemError
from workers.runtime.giving_way import GivingWay
from workers.runtime.task import run_leased
from workers.stages.job_parts import park_for_parts
from workers.stages.job_reading import read_job
from workers.stages.job_selecting import JobSelecting, candidates_for, objective_for
from workers.stages.job_sketches import sketches_for
from workers.stages.leased_job import leased_job
from workers.stages.published import Beside, Published
from workers.stages.publishing import publish
from workers.stages.purposes import POOL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from workers.stages.job_reading import JobReading
    from workers.stages.job_sketches import JobSketches
    from workers.stages.leased_job import LeasedJob
    from workers.stages.sensitivity import Chosen

logger = logging.getLogger(__name__)


def run_job(job_id: str, dispatch: int) -> None:
    """Work on a job until it is parked or ends."""
    context = current_context()

    def discard(job: uuid.UUID) -> None:
        try:
            context.artifacts.remove_all(rows_prefix(job))
        except StorageFailed as error:  # the job ends all the same
            logger.warning("job %s: its rows may have stayed, retention deletes them: %s", job, error)

    run_leased(context, Job, job_id, dispatch, lambda heartbeat: _take_turn(leased_job(context, heartbeat)), discard)
    with context.sessions() as session:
        parking.drop_units(session)
        session.commit()
        waiting = proofs.wake(session, job_id=uuid.UUID(job_id))
    context.queue.put_or_leave(waiting)


def _take_turn(job: LeasedJob) -> None:
    """Park the job or finish it; an exception ends it in another way."""
    for failure in (job.failure, *(part.error for part in job.parts)):
        if failure is not None and not job.damaged:
            raise ProblemError(failure)
    reading = read_job(job)
    if reading is None:
        return
    sketches = sketches_for(job, reading)
    unscored = sketches.unscored(verify=job.damaged)
    if unscored is None:
        return
    sketches.mark_used()
    scored = sketches.scored(unscored)
    if job.plan.parked_at is not None and job.plan.parted_at is None:
        job.seconds[Stage.GRADIENTS] = round(job.now() - job.plan.parked_at, 3)
    with job.timed(Stage.SELECTING):
        loaded = sketches.load(unscored)
        if loaded is None:
            return
        candidates = candidates_for(job, reading, loaded[POOL])
        objective = objective_for(job, reading, candidates, loaded)
        if job.request.selection.partitions is not None and (job.damaged or not job.parts):
            park_for_parts(job, sketches, candidates, objective)
            return
        selecting = JobSelecting(job, candidates, objective, GivingWay(job.context, job.turn))
        try:
            methods = selecting.methods(sketches, loaded, unscored)
            windows = sketches.windows()
            chosen = selecting.chosen(methods) if windows is None else selecting.as_scheduled(windows)
        except ShardDamaged as error:
            sketches.park_damaged(error)
            return
        if job.plan.parted_at is not None:
            job.seconds[Stage.SELECTING] = round(job.now() - job.plan.parted_at, 3)
    published = published_of(selecting, reading, sketches, scored, chosen, methods.figures)
    publish(job.context, job.heartbeat, published)


def published_of(
    selecting: JobSelecting,
    reading: JobReading,
    sketches: JobSketches,
    scored: int,
    chosen: Chosen,
    figures: Mapping[str, NDArray[np.float64]],
) -> Published:
    """All that a job publishes, of what it selected from and what it chose."""
    job, own = selecting.job, sketches.own
    return Published(
        reading=own.reading,
        candidates=selecting.candidates,
        objective=selecting.objective,
        chosen=chosen,
        figures=figures,
        selection=job.request.selection,
        source_column=source_column(own.reading.snapshot, job.context.settings, job.request.dataset.source_column),
        sketches=own.store.key,
        scored=own.store.scored(),
        computed=sketches.computed,
        limited=sketches.limited(scored),
        windows=sketches.windows(),
        beside={
            one.role: Beside(
                fingerprint=one.reading.snapshot.fingerprint,
                sketches=one.store.key,
                samples=len(one.reading.corpus),
                computed=job.computed.get(one.role, 0),
            )
            for one in sketches.beside
        },
        decontamination=reading.membership.evaluation,
        seconds=job.seconds,
    )
