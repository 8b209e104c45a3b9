"""Run one unit of leased work: claim it, do it, and end it in exactly one way."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from sqlalchemy.exc import InterfaceError, OperationalError

from app.core.db.tables import State
from app.core.lifecycle import leases
from app.core.lifecycle.leases import Waiting
from app.core.storage import StorageAway, StorageFailed
from app.core.telemetry import origin
from workers.data.stopping import Stopped
from workers.runtime.failures import UNFORESEEN, JobError, RequestNotUnderstood, problem_of
from workers.runtime.heartbeat import LeaseHeartbeat
from workers.selection import SelectionCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.lifecycle.leases import Lease, Work
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)


def run_leased(
    context: WorkerContext,
    table: Work,
    row_id: str,
    dispatch: int,
    work: Callable[[LeaseHeartbeat], None],
    discard: Callable[[uuid.UUID], None] = lambda _: None,
    **values: object,
) -> None:
    """Claim a row and run `work` on it.

    Args:
        context: This worker.
        table: The table of the row.
        row_id: The row, as the queue names it.
        dispatch: The dispatch that the message stands for; an outdated one claims nothing.
        work: Does the work, and finishes the row as succeeded at its end. An exception decides how else the row ends.
        discard: Removes what unfinished work may have left.
        **values: Columns to set with the claim.
    """
    with context.sessions() as session:
        lease = leases.claim(session, table, uuid.UUID(row_id), dispatch, context.settings.lease_s, **values)
    if lease is None:
        logger.info("%s %s: dispatch %d is not to be done (any more)", table.__tablename__, row_id, dispatch)
        return
    with origin.taken_up(lease.origin, table.__tablename__, row_id):
        _run_claimed(context, lease, dispatch, work, discard)
    context.free_memory()  # what the work held is unreachable only now


def _run_claimed(
    context: WorkerContext,
    lease: Lease,
    dispatch: int,
    work: Callable[[LeaseHeartbeat], None],
    discard: Callable[[uuid.UUID], None],
) -> None:
    table, row_id = lease.table, lease.id
    logger.info("%s %s: begun, dispatch %d", table.__tablename__, row_id, dispatch)
    with LeaseHeartbeat(context, lease) as heartbeat:
        try:
            work(heartbeat)
        except (Stopped, SelectionCancelledError):
            _stop(context, heartbeat, discard)
        except StorageAway as error:
            patience_s = context.settings.storage_patience_s
            failure = StorageFailed(f"{error}; it was away for {patience_s:g} s")
            _postpone(context, heartbeat, discard, error, error.operation, failure)
        except RequestNotUnderstood as error:
            _postpone(context, heartbeat, discard, error, "understand the request", _no_newer_worker(error))
        except (OperationalError, InterfaceError):
            # Postgres went away. The lease runs out and the row is queued again, or is still ours and this
            # worker's next message finds it; either way nothing is decided here.
            logger.exception("%s %s: Postgres does not answer, the lease runs out", table.__tablename__, row_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how the row ends
            _fail(context, heartbeat, discard, error)


def _postpone(
    context: WorkerContext,
    heartbeat: LeaseHeartbeat,
    discard: Callable[[uuid.UUID], None],
    reason: Exception,
    operation: str,
    in_the_end: Exception,
) -> None:
    """Put the row back until what it needs may be there; fail it after `storage_patience_s`.

    Args:
        context: This worker.
        heartbeat: Of the row.
        discard: Removes what unfinished work may have left.
        reason: Why the row waits.
        operation: What could not be done.
        in_the_end: How the row fails.
    """
    lease = heartbeat.lease
    heartbeat.stop()
    with context.sessions() as session:
        postponed = leases.postpone(session, lease, context.settings.storage_patience_s, operation)
    if postponed:
        logger.warning("%s %s: it waits, %s", lease.table.__tablename__, lease.id, reason)
    else:
        _fail(context, heartbeat, discard, in_the_end)


def _no_newer_worker(error: RequestNotUnderstood) -> JobError:
    return JobError(
        "request-not-understood",
        "No worker understands the request",
        "request",
        f"{error}, and no worker of a newer one has come: start workers of the release that the API has",
    )


def _fail(
    context: WorkerContext, heartbeat: LeaseHeartbeat, discard: Callable[[uuid.UUID], None], error: Exception
) -> None:
    """Fail the row with the problem of an exception."""
    problem, lease = problem_of(error), heartbeat.lease
    # What is known to go wrong says so in a line. Its traceback would tell no more, but for what libraries put into
    # the errors underneath: the whole of a presigned URL, say.
    unforeseen = error if problem["type"] in UNFORESEEN else None
    logger.error(
        "%s %s: %s: %s",
        lease.table.__tablename__,
        lease.id,
        problem["type"],
        problem.get("detail"),
        exc_info=unforeseen,
    )
    if _still_ours(context, heartbeat, discard):
        discard(lease.id)
        _finish(context, lease, State.FAILED, error=problem)


def _still_ours(context: WorkerContext, heartbeat: LeaseHeartbeat, discard: Callable[[uuid.UUID], None]) -> bool:
    """Whether this worker still holds the lease; another worker may hold it, or may have finished the row."""
    heartbeat.stop()
    heartbeat.refresh()
    if heartbeat.lost:
        with context.sessions() as session:
            unwanted = leases.unwanted(session, heartbeat.lease.table, heartbeat.lease.id)
        if unwanted:
            discard(heartbeat.lease.id)
    return not heartbeat.lost


def _stop(context: WorkerContext, heartbeat: LeaseHeartbeat, discard: Callable[[uuid.UUID], None]) -> None:
    """Cancel the row, or hand it back, for work that was told to stop."""
    lease = heartbeat.lease
    if not _still_ours(context, heartbeat, discard):
        return
    if heartbeat.cancelled:
        discard(lease.id)
        _finish(context, lease, State.CANCELLED)
        return
    with context.sessions() as session:
        dispatch = leases.hand_back(session, lease)
    if dispatch is not None:
        logger.info("%s %s: handed back", lease.table.__tablename__, lease.id)
        context.queue.put_or_leave([Waiting(lease.table, lease.id, dispatch)])


def _finish(context: WorkerContext, lease: Lease, state: State, **values: object) -> None:
    with context.sessions() as session:
        leases.finish(session, lease, state, **values)
        session.commit()
    logger.info("%s %s: %s", lease.table.__tablename__, lease.id, state)
