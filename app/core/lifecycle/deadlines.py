"""Timeouts of jobs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from app.core.db.tables import Job, State
from app.core.lifecycle.leases import OPEN

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.db.tables import Json

logger = logging.getLogger(__name__)

TIMED_OUT = "timed-out"


def enforce(session: Session) -> None:
    """Fail all jobs that are past their timeout.

    The time counts from the job's first start on Postgres's clock. A worker that holds such a job, or a shard of it,
    learns of it with its next heartbeat.
    """
    overdue = (
        Job.state.in_(OPEN),
        Job.started_at + func.make_interval(0, 0, 0, 0, 0, 0, Job.timeout_s) < func.now(),  # null where there is none
    )
    for job_id, timeout_s in session.execute(select(Job.id, Job.timeout_s).where(*overdue)).all():
        session.execute(
            update(Job)
            .where(Job.id == job_id, *overdue)
            .values(
                state=State.FAILED,
                error=_timed_out(timeout_s or 0.0),
                lease_token=None,
                lease_expires_at=None,
                finished_at=func.now(),
            )
        )
        logger.warning("job %s is past its timeout of %s s", job_id, timeout_s)
    session.commit()


def _timed_out(timeout_s: float) -> Json:
    detail = (
        f"The job took more than the {timeout_s:g} s that it had from its start. What it computed is kept: submit it "
        "again to go on from there, with a larger timeout_s if SPICE_JOB_TIMEOUT_S allows it."
    )
    return {
        "type": TIMED_OUT,
        "title": "The job took too long",
        "detail": detail,
        "errors": [{"field": "timeout_s", "message": detail}],
    }
