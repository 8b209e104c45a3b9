"""Make the queue agree with Postgres.

Redis may be wiped, a message may be lost between commit and enqueue, a worker may be killed while it holds a message.
The reconciler finds every row that should be in the queue, or that a dead worker still holds, and queues it again.
Any number of API processes may reconcile at the same time; each change is one conditional UPDATE.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from app.core.lifecycle import counts, deadlines, leases, limits, parking, proofs
from app.core.lifecycle.leases import SERVED

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.lifecycle.leases import Waiting
    from app.core.queue import TaskQueue
    from app.core.settings import Settings

logger = logging.getLogger(__name__)


def reconcile(sessions: Sessions, queue: TaskQueue, settings: Settings) -> int:
    """Queue lost rows again, once.

    Returns:
        Number of rows that were queued again.

    Raises:
        QueueUnavailable: Redis does not answer.
        SQLAlchemyError: Postgres does not answer.
    """
    due: list[Waiting] = []
    dead: list[Waiting] = []
    with sessions() as session:
        deadlines.enforce(session)
        limits.enforce(session)
        parking.drop_units(session)
        proofs.drop_finished(session)
        session.commit()
        for table in leases.with_silent_workers(session):
            reclaimed = leases.reclaim_expired(session, table, settings.max_attempts)
            dead += [replace(work, dispatch=work.dispatch - 1) for work in (*reclaimed.again, *reclaimed.ended)]
            due += reclaimed.again
        # The dispatch stays: a worker may be about to claim the row, woken by the message of another one.
        due += [row for row in queue.missing(_unwoken(session, queue, settings.reconcile_s)) if row not in due]
        due += parking.wake_jobs(session)
        due += proofs.wake(session)
        counts.count_ended(session)
    for work in dead:
        queue.drop(work)
    for work in due:
        logger.warning("%s %s is queued again, dispatch %d", work.table.__tablename__, work.id, work.dispatch)
    queue.put(due)
    return len(due)


def _unwoken(session: Session, queue: TaskQueue, seconds: float) -> list[Waiting]:
    """Rows that have waited for `seconds` and for which a message may be missing.

    A message wakes a worker for whatever waits. While a queue holds as many messages as rows wait, none is missing, and
    thousands of rows need not be compared with thousands of messages.
    """
    counts, lengths = leases.count_waiting_since(session, seconds), queue.lengths()
    found = []
    for kind, tables in SERVED.items():
        if sum(counts[table] for table in tables) > lengths[kind]:
            found += [row for table in tables for row in leases.waiting_since(session, table, seconds)]
    return found
