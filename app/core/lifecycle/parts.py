"""The parts that a job's selection is split into: made when it is parked for them, read when it merges them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from app.core.db.tables import Job, Part, Stage, State
from app.core.lifecycle.leases import Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.core.db.tables import Json
    from app.core.lifecycle.leases import Lease

DAMAGED = "sketches-damaged"
"""Type of the problem of a part that met a damaged shard: the job has that made again, and is parted anew."""


def park(session: Session, lease: Lease, budgets: Sequence[int], plan: Json) -> list[Waiting]:
    """Let go of a job until its parts are done, in one transaction with their making.

    Args:
        session: For this transaction alone.
        lease: The worker's hold on the job.
        budgets: Picks that each part makes at most.
        plan: What the parts' workers and the job's next worker need to know.

    Returns:
        The parts, to be put into the queue; none if the job is no longer held or was cancelled.
    """
    total = sum(budgets)
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
            stage=Stage.SELECTING,
            progress={"done": 0, "total": total, "unit": "picks", "rate": None, "eta_s": None},
            plan=plan,
        )
        .returning(Job.id)
    ).one_or_none()
    if held is None:
        session.rollback()
        return []
    drop(session, lease.id)
    ids = [uuid.uuid4() for _ in budgets]
    session.execute(
        insert(Part),
        [
            {"id": part_id, "job_id": lease.id, "number": number, "budget": budget}
            for number, (part_id, budget) in enumerate(zip(ids, budgets, strict=True))
        ],
    )
    session.commit()
    return [Waiting(Part, part_id, 1) for part_id in ids]


def of_job(session: Session, job_id: uuid.UUID) -> Sequence[Part]:
    """The parts of a job by number; none before it is parked for them."""
    return session.scalars(select(Part).where(Part.job_id == job_id).order_by(Part.number)).all()


def drop(session: Session, job_id: uuid.UUID) -> None:
    """Delete the parts of a job in the caller's transaction; a worker that holds one hears of it soon."""
    session.execute(delete(Part).where(Part.job_id == job_id))
