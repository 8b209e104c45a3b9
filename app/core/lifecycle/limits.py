"""The limit of seconds that a job may set to its gradients: once it is reached, no further shard is begun.

The limit of tokens needs nothing here: the worker that makes a job's shards makes no more than it allows.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import Double, delete, func, select

from app.core.contracts.job_plan import LimitReached
from app.core.db.tables import Job, Shard, Stage, State

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)


def enforce(session: Session, job_id: uuid.UUID | None = None) -> None:
    """Drop the shards that wait of parked jobs that are past their limit of seconds, and commit.

    Shards that are worked on are finished. The job is woken as if its shards were done; one that waits for another
    job's shards waits no longer.

    Args:
        session: For this transaction alone.
        job_id: Look only at this job.
    """
    seconds = Job.request[("limits", "seconds")].astext.cast(Double)
    used = func.extract("epoch", func.now() - Job.started_at)
    statement = (
        select(Job, seconds.label("limit"), used.label("used"))
        .where(
            Job.state == State.RUNNING,
            Job.lease_token.is_(None),
            Job.stage == Stage.GRADIENTS,
            used > seconds,  # null where there is no limit
            Job.plan["limited"].is_(None),
        )
        .with_for_update(of=Job, skip_locked=True)
    )
    if job_id is not None:
        statement = statement.where(Job.id == job_id)
    for row in session.execute(statement).all():
        job = row.Job
        dropped = session.scalars(
            delete(Shard).where(Shard.job_id == job.id, Shard.state == State.QUEUED).returning(Shard.id)
        ).all()
        plan = dict(job.plan or {})
        plan.pop("behind", None)
        reached = LimitReached(limit="seconds", value=row.limit, used=round(float(row.used), 3))
        job.plan = {**plan, "limited": reached.model_dump()}
        logger.info("job %s is past its limit of %s s: %d shards are not begun", job.id, row.limit, len(dropped))
    session.commit()
