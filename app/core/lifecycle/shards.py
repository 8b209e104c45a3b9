"""The shards of jobs: made when a job is parked, counted while it waits, gone when it ends."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, insert, or_, select, update

from app.core.db.tables import Job, Part, Shard, Stage, State
from app.core.lifecycle.leases import OPEN, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.core.db.tables import Json
    from app.core.lifecycle.leases import Lease


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """What one worker does for a job right now."""

    worker: str
    shard: int
    done: int
    total: int
    rate: float | None
    tokens_per_s: float | None


def park(session: Session, lease: Lease, sizes: Mapping[int, int], plan: Json) -> list[Waiting]:
    """Let go of a job until its shards are done, in one transaction with their making.

    Args:
        session: For this transaction alone.
        lease: The worker's hold on the job.
        sizes: Number and samples of each shard.
        plan: What the shards' workers and the job's next worker need to know.

    Returns:
        The shards, to be put into the queue; none if the job is no longer held or was cancelled.
    """
    held = session.execute(
        update(Job)
        .where(
            Job.id == lease.id,
            Job.lease_token == lease.token,
            Job.state == State.RUNNING,
            Job.cancel_requested_at.is_(None),
        )
        .values(
            lease_token=None,
            lease_expires_at=None,
            outage_since=None,
            stage=Stage.GRADIENTS,
            progress={"done": 0, "total": sum(sizes.values()), "unit": "samples", "rate": None, "eta_s": None},
            plan=plan,
        )
        .returning(Job.id)
    ).one_or_none()
    if held is None:
        session.rollback()
        return []
    for table in (Shard, Part):
        session.execute(delete(table).where(table.job_id == lease.id))
    ids = [uuid.uuid4() for _ in sizes]
    session.execute(
        insert(Shard),
        [
            {"id": shard_id, "job_id": lease.id, "number": number, "samples": samples}
            for shard_id, (number, samples) in zip(ids, sizes.items(), strict=True)
        ],
    )
    session.commit()
    return [Waiting(Shard, shard_id, 1) for shard_id in ids]


def wake(session: Session, job_id: uuid.UUID | None = None) -> list[Waiting]:
    """Queue parked jobs whose shards or parts are all done, or one of which failed: all of them, or the one given."""
    shards, parts = exists().where(Shard.job_id == Job.id), exists().where(Part.job_id == Job.id)
    decided = or_(
        ~or_(shards.where(Shard.state.in_(OPEN)), parts.where(Part.state.in_(OPEN))),
        shards.where(Shard.state == State.FAILED),
        parts.where(Part.state == State.FAILED),
    )
    parked = [Job.state == State.RUNNING, Job.lease_token.is_(None), decided]
    if job_id is not None:
        parked.append(Job.id == job_id)
    rows = session.execute(
        update(Job)
        .where(*parked)
        .values(state=State.QUEUED, dispatch=Job.dispatch + 1, queued_at=func.now())
        .returning(Job.id, Job.dispatch)
    ).all()
    session.commit()
    return [Waiting(Job, row.id, row.dispatch) for row in rows]


def drop_finished(session: Session) -> None:
    """Delete the shards and parts of jobs that have ended, in the caller's transaction.

    A worker that still holds one hears of it soon.
    """
    for table in (Shard, Part):
        session.execute(
            delete(table).where(table.job_id.in_(select(Job.id).where(Job.id == table.job_id, Job.state.not_in(OPEN))))
        )


def first_error(session: Session, job_id: uuid.UUID) -> Json | None:
    """Why a shard of the job failed, if one did."""
    statement = select(Shard.error).where(Shard.job_id == job_id, Shard.state == State.FAILED)
    return session.scalar(statement.order_by(Shard.number).limit(1))


def workers(session: Session, job_id: uuid.UUID) -> list[WorkerProgress]:
    """Who works on a job's shards, or on its parts: it is parked for either."""
    shards = select(Shard.number, Shard.samples, Shard.worker, Shard.progress).where(
        Shard.job_id == job_id, Shard.state == State.RUNNING
    )
    parts = select(Part.number, Part.budget, Part.worker, Part.progress).where(
        Part.job_id == job_id, Part.state == State.RUNNING
    )
    return [
        WorkerProgress(
            worker=worker or "",
            shard=number,
            done=(progress or {}).get("done", 0),
            total=total,
            rate=(progress or {}).get("rate"),
            tokens_per_s=(progress or {}).get("tokens_per_s"),
        )
        for number, total, worker, progress in session.execute(shards.union_all(parts).order_by("number")).all()
    ]
