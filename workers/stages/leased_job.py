"""A job that this worker holds: what was asked, what earlier turns at it found out, how long its stages take."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.contracts.job_plan import JobPlan
from app.core.db import clock
from app.core.db.tables import Job
from app.core.lifecycle import parking, sketch_use
from app.core.lifecycle.turns import Turn
from app.core.telemetry import tracing
from workers.data.stopping import Stopped
from workers.stages.purposes import POOL
from workers.stages.reading import source_of

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Mapping, Sequence

    from app.core.contracts.job_request import JobRequest
    from app.core.db.tables import Json, Part, Stage
    from app.core.lifecycle.parking import Units
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.reading import Source


@dataclass(frozen=True, slots=True, eq=False)
class LeasedJob:
    """What one turn at a job starts from.

    Attributes:
        id: The job's id.
        context: This worker.
        heartbeat: Its lease of the job.
        source: What the job reads.
        plan: What earlier turns found out.
        turn: Whose job it is, and how urgent.
        failure: The problem of a shard that failed, or None.
        parts: The parts of the job's rows that were selected from; empty where there are none.
        computed: Samples whose sketches were computed for this job, by the role of their dataset.
        seconds: Time of each stage so far.
    """

    id: uuid.UUID
    context: WorkerContext
    heartbeat: LeaseHeartbeat
    source: Source
    plan: JobPlan
    turn: Turn
    failure: Json | None
    parts: Sequence[Part]
    computed: dict[str, int]
    seconds: dict[str, float]

    @property
    def request(self) -> JobRequest:
        """What the client asked for."""
        return self.source.request

    @property
    def damaged(self) -> bool:
        """Whether a shard or a part failed for damaged sketches, so that all are to be looked at."""
        failures = [self.failure, *(part.error for part in self.parts)]
        return any(failure is not None and failure["type"] == parking.DAMAGED for failure in failures)

    def should_stop(self) -> bool:
        """Whether the job was cancelled or lost, or the worker is shutting down."""
        return self.heartbeat.should_stop()

    def park(
        self,
        units: Units,
        sizes: Mapping[int, int],
        plan: JobPlan,
        own: Mapping[int, int] | None = None,
        planned_own: JobPlan | None = None,
    ) -> None:
        """Let go of the job until its units are done, or another job has done the work that the plan names.

        Args:
            units: What the job waits for.
            sizes: Number and size of each unit of the work.
            plan: Of the job; without `work` no other job can do it.
            own: The units that are made where no other job does the work; None for all.
            planned_own: The plan there, if it is another one.

        Raises:
            Stopped: The job was cancelled or lost meanwhile.
        """
        lease = self.heartbeat.lease
        self.heartbeat.tell()  # a stage that was shorter than a heartbeat is told as well
        self.heartbeat.stop()
        with self.context.sessions() as session:
            if plan.work is not None and parking.park_behind(session, lease, units, sizes, plan):
                return
            waiting = parking.park_job(session, lease, units, sizes if own is None else own, planned_own or plan)
        self.context.queue.put_or_leave(waiting)
        if not waiting:
            raise Stopped

    def use_sketches(self, key: str, plan: JobPlan) -> None:
        """Keep sketches from being deleted until the job ends.

        Args:
            key: The sketches' content key.
            plan: The rest of the job's plan.

        Raises:
            Stopped: The job was cancelled or lost meanwhile.
        """
        with self.context.sessions() as session:
            signals = sketch_use.use(session, self.heartbeat.lease, key, plan, self.context.settings.lease_s)
        if not signals.held:
            raise Stopped

    def now(self) -> float:
        """Seconds since 1970 on Postgres's clock, which all workers share."""
        with self.context.sessions() as session:
            return clock.now(session)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Note how long a stage takes, unless an earlier turn has noted it."""
        began = time.monotonic()
        with tracing.span(f"stage {stage}"):
            yield
        self.seconds.setdefault(stage, round(time.monotonic() - began, 3))


def leased_job(context: WorkerContext, heartbeat: LeaseHeartbeat) -> LeasedJob:
    """Look up the job of a lease; raises as `source_of`."""
    job_id, source = heartbeat.lease.id, source_of(context, heartbeat.lease.id)
    with context.sessions() as session:
        job = session.get_one(Job, job_id)
        plan = JobPlan.load(job.plan)
        done = parking.samples_done(session, job_id)
        computed = {POOL: plan.computed, **plan.computed_beside}
        if plan.ranges is None:
            computed[plan.role] = computed.get(plan.role, 0) + done
        return LeasedJob(
            id=job_id,
            context=context,
            heartbeat=heartbeat,
            source=source,
            plan=plan,
            turn=Turn(job.project_id, job.priority),
            failure=parking.shard_error(session, job_id),
            parts=parking.parts_of(session, job_id),
            computed=computed,
            seconds=dict(plan.seconds),
        )
