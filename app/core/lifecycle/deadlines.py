"""Timeouts of jobs and proofs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from app.core.db.tables import Job, Proof, State
from app.core.lifecycle.leases import OPEN

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.db.tables import Json

logger = logging.getLogger(__name__)

TIMED_OUT = "timed-out"


def enforce(session: Session) -> None:
    """Fail all jobs and proofs that are past their timeout.

    The time counts from the first start on Postgres's clock. A worker that holds such a row, or a part of its work,
    learns of it with its next heartbeat.
    """
    _enforce(session, Job)
    _enforce(session, Proof)
    session.commit()


def _enforce(session: Session, table: type[Job | Proof]) -> None:
    overdue = (
        table.state.in_(OPEN),
        # null where there is no timeout
        table.started_at + func.make_interval(0, 0, 0, 0, 0, 0, table.timeout_s) < func.now(),
    )
    what = table.__name__.lower()
    for row_id, timeout_s in session.execute(select(table.id, table.timeout_s).where(*overdue)).all():
        session.execute(
            update(table)
            .where(table.id == row_id, *overdue)
            .values(
                state=State.FAILED,
                error=_timed_out(what, timeout_s or 0.0),
                lease_token=None,
                lease_expires_at=None,
                finished_at=func.now(),
            )
        )
        logger.warning("%s %s is past its timeout of %s s", what, row_id, timeout_s)


def _timed_out(what: str, timeout_s: float) -> Json:
    detail = (
        f"The {what} took more than the {timeout_s:g} s that it had from its start. What it computed is kept: submit "
        "it again to go on from there, with a larger timeout_s if SPICE_JOB_TIMEOUT_S allows it."
    )
    return {
        "type": TIMED_OUT,
        "title": f"The {what} took too long",
        "detail": detail,
        "errors": [{"field": "timeout_s", "message": detail}],
    }
