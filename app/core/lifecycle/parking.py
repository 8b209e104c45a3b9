"""Park work until other rows are done: a job for its shards or its parts, and whatever else waits for rows of its own.

A parked row is running and nobody holds its lease. The rows that it waits for are its units: each is queued, claimed
and finished like any other work. The worker that ends a unit wakes the parked row once all units are done, or one has
failed.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from app.core.db.tables import Job, Part, Shard, Stage, State
from app.core.lifecycle.leases import OPEN, Waiting, held_and_wanted
from app.core.lifecycle.sketch_use import lock_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstrumentedAttribute, Session

    from app.core.contracts.job_plan import JobPlan
    from app.core.db.tables import Json
    from app.core.lifecycle.leases import Lease, Work

DAMAGED = "sketches-damaged"
"""Type of the problem of a part that met a damaged shard: the job has that made again, and is parted anew."""


@dataclass(frozen=True, slots=True)
class Units:
    """What a job is parked for.

    Attributes:
        table: A row a unit.
        size: The column with what a unit is made of.
        unit: What the column counts.
        stage: The job's stage meanwhile.
    """

    table: type[Shard] | type[Part]
    size: InstrumentedAttribute[int]
    unit: str
    stage: Stage


SHARDS = Units(Shard, Shard.samples, "samples", Stage.GRADIENTS)
RANGES = Units(Shard, Shard.samples, "bytes", Stage.READING)
"""A shard whose size is bytes: a range of the dataset that one worker turns into tokens."""
WINDOWS = Units(Shard, Shard.samples, "windows", Stage.GRADIENTS)
"""Of a job with a schedule: one unit, which holds all of its windows."""
PARTS = Units(Part, Part.budget, "picks", Stage.SELECTING)
UNITS_OF_JOBS = (SHARDS, PARTS)


@dataclass(frozen=True, slots=True)
class UnitProgress:
    """What one worker does for a job right now; `shard` is the number of the unit."""

    worker: str
    shard: int
    done: int
    total: int
    rate: float | None
    tokens_per_s: float | None


def let_go(session: Session, lease: Lease, **values: Any) -> bool:  # noqa: ANN401 - columns of any type
    """Park the row that a worker holds, in the caller's transaction; its units are made in the same one.

    Returns:
        False, having changed nothing, if the row is no longer held or was cancelled.
    """
    released = {"lease_token": None, "lease_expires_at": None, "outage_since": None, "outage_of": None}
    parked = update(lease.table).where(*held_and_wanted(lease)).values(**released, **values)
    return session.execute(parked.returning(lease.table.id)).one_or_none() is not None


def wake(session: Session, table: Work, *decided: ColumnElement[bool]) -> list[Waiting]:
    """Queue the parked rows of a table for which all conditions hold; commits."""
    rows = session.execute(
        update(table)
        .where(table.state == State.RUNNING, table.lease_token.is_(None), *decided)
        .values(state=State.QUEUED, dispatch=table.dispatch + 1, queued_at=func.now())
        .returning(table.id, table.dispatch)
    ).all()
    session.commit()
    return [Waiting(table, row.id, row.dispatch) for row in rows]


def park_job(session: Session, lease: Lease, units: Units, sizes: Mapping[int, int], plan: JobPlan) -> list[Waiting]:
    """Let go of a job until its units are done, in one transaction with their making.

    Args:
        session: For this transaction alone.
        lease: The worker's hold on the job.
        units: What the job waits for.
        sizes: Number and size of each unit.
        plan: What the units' workers and the job's next worker need to know.

    Returns:
        The units, to be put into the queue; none if the job is no longer held or was cancelled.
    """
    if not _let_go_of_job(session, lease, units, sizes, plan):
        return []
    rows: list[dict[str, Any]] = [
        {"id": uuid.uuid4(), "job_id": lease.id, "number": number, units.size.key: size}
        for number, size in sizes.items()
    ]
    session.execute(insert(units.table), rows)
    session.commit()
    return [Waiting(units.table, row["id"], 1) for row in rows]


def park_behind(session: Session, lease: Lease, units: Units, sizes: Mapping[int, int], plan: JobPlan) -> bool:
    """Let go of a job until another job, whose shards make the very thing that this job lacks, has it.

    This takes a lock of that work until the transaction ends, so that of several jobs that come at once one makes
    shards. The other job's shards get this job's priority if it is higher.

    Returns:
        False if no job does this work: `park_job` comes next, in the same transaction.
    """
    assert plan.work is not None  # noqa: S101 - who parks a job for shards has named what they make
    session.execute(select(func.pg_advisory_xact_lock(lock_number(hashlib.sha256(plan.work.encode()).hexdigest()))))
    computing = select(Job.id).where(
        Job.id != lease.id,
        _same_work(plan.work),
        exists().where(Shard.job_id == Job.id, Shard.state.in_(OPEN)),
    )
    first = session.scalar(computing.limit(1))
    if first is None:
        return False
    priority = select(Job.priority).where(Job.id == lease.id).scalar_subquery()
    session.execute(update(Job).where(Job.id == first).values(priority=func.greatest(Job.priority, priority)))
    behind = plan.model_copy(update={"behind": True})
    if _let_go_of_job(session, lease, units, sizes, behind):
        session.commit()
    return True


def _let_go_of_job(session: Session, lease: Lease, units: Units, sizes: Mapping[int, int], plan: JobPlan) -> bool:
    progress = {"done": 0, "total": sum(sizes.values()), "unit": units.unit, "rate": None, "eta_s": None}
    if not let_go(session, lease, stage=units.stage, progress=progress, plan=plan.stored()):
        session.rollback()
        return False
    for earlier in UNITS_OF_JOBS:
        session.execute(delete(earlier.table).where(earlier.table.job_id == lease.id))
    return True


def _same_work(work: Any) -> ColumnElement[bool]:  # noqa: ANN401 - a text or a column
    return and_(Job.state.in_(OPEN), Job.plan["work"].astext == work)


def wake_jobs(session: Session, job_id: uuid.UUID | None = None) -> list[Waiting]:
    """Queue the parked jobs whose units are all done, or one of which failed; commits.

    A job that is parked behind another job's shards is queued once none of those is open.

    Args:
        session: For this transaction alone.
        job_id: Look only at this job, and at those behind it.
    """
    tables = [units.table for units in UNITS_OF_JOBS]
    other = aliased(Job)
    open_elsewhere = exists().where(
        other.id != Job.id,
        other.state.in_(OPEN),
        other.plan["work"].astext == Job.plan["work"].astext,
        _some(Shard, other, *OPEN),
    )
    conditions = [
        or_(
            ~or_(*(_some(table, Job, *OPEN) for table in tables)),
            *(_some(table, Job, State.FAILED) for table in tables),
        ),
        or_(Job.plan["behind"].is_(None), ~open_elsewhere),
    ]
    if job_id is not None:
        same = _same_work(select(other.plan["work"].astext).where(other.id == job_id).scalar_subquery())
        conditions.append(or_(Job.id == job_id, and_(Job.plan["behind"].is_not(None), same)))
    return wake(session, Job, *conditions)


def _some(table: type[Shard] | type[Part], job: type[Job], *states: State) -> ColumnElement[bool]:
    """Whether a job has units in one of these states.

    The first of each state is looked for by its number, which an index finds. For EXISTS Postgres would rather look
    through the table, and meets all units that are done before it meets the first that is not.
    """
    firsts = (
        select(table.number)
        .where(table.job_id == job.id, table.state == state)
        .order_by(table.number)
        .limit(1)
        .scalar_subquery()
        for state in states
    )
    return or_(*(first.is_not(None) for first in firsts))


def drop_units(session: Session) -> None:
    """Delete the units of jobs that have ended, in the caller's transaction.

    A worker that still holds a unit hears of it with its next heartbeat.
    """
    for units in UNITS_OF_JOBS:
        ended = select(Job.id).where(Job.id == units.table.job_id, Job.state.not_in(OPEN))
        session.execute(delete(units.table).where(units.table.job_id.in_(ended)))


def samples_done(session: Session, job_id: uuid.UUID) -> int:
    """Samples of the job's shards that are done."""
    done = select(func.coalesce(func.sum(Shard.samples), 0))
    return int(session.scalar(done.where(Shard.job_id == job_id, Shard.state == State.SUCCEEDED)) or 0)


def shard_error(session: Session, job_id: uuid.UUID) -> Json | None:
    """Why a shard of the job failed, if one did."""
    statement = select(Shard.error).where(Shard.job_id == job_id, Shard.state == State.FAILED)
    return session.scalar(statement.order_by(Shard.number).limit(1))


def parts_of(session: Session, job_id: uuid.UUID) -> Sequence[Part]:
    """The parts of a job by number; none before it is parked for them."""
    return session.scalars(select(Part).where(Part.job_id == job_id).order_by(Part.number)).all()


def workers_of(session: Session, job_id: uuid.UUID) -> list[UnitProgress]:
    """Who works on a job's units."""
    running = [
        select(units.table.number, units.size.label("total"), units.table.worker, units.table.progress).where(
            units.table.job_id == job_id, units.table.state == State.RUNNING
        )
        for units in UNITS_OF_JOBS
    ]
    return [
        UnitProgress(
            worker=worker or "",
            shard=number,
            done=(progress or {}).get("done", 0),
            total=total,
            rate=(progress or {}).get("rate"),
            tokens_per_s=(progress or {}).get("tokens_per_s"),
        )
        for number, total, worker, progress in session.execute(
            running[0].union_all(*running[1:]).order_by("number")
        ).all()
    ]
