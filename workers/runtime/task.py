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
from workers.runtime.failures import UNFORESEEN, problem_of
from workers.runtime.heartbeat import Keeper
from workers.selection import SelectionCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.lifecycle.leases import Lease, Work
    from workers.runtime.context import Process

logger = logging.getLogger(__name__)


def run_leased(
    process: Process,
    table: Work,
    row_id: str,
    dispatch: int,
    work: Callable[[Keeper], None],
    discard: Callable[[uuid.UUID], None] = lambda _: None,
    **values: object,
) -> None:
    """Claim a row and run `work` on it.

    Args:
        process: This worker.
        table: Whose row it is.
        row_id: The row, as the queue names it.
        dispatch: The dispatch that the message stands for; an outdated one claims nothing.
        work: Does it all and ends by finishing the row as succeeded. What it raises decides how the row ends.
        discard: Removes what unfinished work may have left.
        **values: Columns to set with the claim.
    """
    with process.sessions() as session:
        lease = leases.claim(session, table, uuid.UUID(row_id), dispatch, process.settings.lease_s, **values)
    if lease is None:
        logger.info("%s %s: dispatch %d is not to be done (any more)", table.__tablename__, row_id, dispatch)
        return
    with origin.taken_up(lease.origin, table.__tablename__, row_id):
        _run_claimed(process, lease, dispatch, work, discard)
    process.free_memory()  # what the work held is unreachable only now


def _run_claimed(
    process: Process,
    lease: Lease,
    dispatch: int,
    work: Callable[[Keeper], None],
    discard: Callable[[uuid.UUID], None],
) -> None:
    table, row_id = lease.table, lease.id
    logger.info("%s %s: begun, dispatch %d", table.__tablename__, row_id, dispatch)
    with Keeper(process, lease) as keeper:
        try:
            work(keeper)
        except (Stopped, SelectionCancelledError):
            _stop(process, keeper, discard)
        except StorageAway as error:
            _postpone(process, keeper, discard, error)
        except (OperationalError, InterfaceError):
            # Postgres went away. The lease runs out and the row is queued again, or is still ours and this
            # worker's next message finds it; either way nothing is decided here.
            logger.exception("%s %s: Postgres does not answer, the lease runs out", table.__tablename__, row_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how the row ends
            _fail(process, keeper, discard, error)


def _postpone(process: Process, keeper: Keeper, discard: Callable[[uuid.UUID], None], error: StorageAway) -> None:
    """Let work wait for a store that is away, until that has lasted too long."""
    lease, patience_s = keeper.lease, process.settings.storage_patience_s
    keeper.stop()
    with process.sessions() as session:
        postponed = leases.postpone(session, lease, patience_s)
    if postponed:
        logger.warning("%s %s: it waits, %s", lease.table.__tablename__, lease.id, error)
    else:
        _fail(process, keeper, discard, StorageFailed(f"{error}; it was away for {patience_s:g} s"))


def _fail(process: Process, keeper: Keeper, discard: Callable[[uuid.UUID], None], error: Exception) -> None:
    """End work that can't go on."""
    problem, lease = problem_of(error), keeper.lease
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
    if _still_ours(process, keeper, discard):
        discard(lease.id)
        _finish(process, lease, State.FAILED, error=problem)


def _still_ours(process: Process, keeper: Keeper, discard: Callable[[uuid.UUID], None]) -> bool:
    """Whether it is for this worker to end the work; another may have it by now, or have left its result already."""
    keeper.stop()
    keeper.refresh()
    if keeper.lost:
        with process.sessions() as session:
            unwanted = leases.unwanted(session, keeper.lease.table, keeper.lease.id)
        if unwanted:
            discard(keeper.lease.id)
    return not keeper.lost


def _stop(process: Process, keeper: Keeper, discard: Callable[[uuid.UUID], None]) -> None:
    """End work that was told to stop."""
    lease = keeper.lease
    if not _still_ours(process, keeper, discard):
        return
    if keeper.cancelled:
        discard(lease.id)
        _finish(process, lease, State.CANCELLED)
        return
    with process.sessions() as session:
        dispatch = leases.hand_back(session, lease)
    if dispatch is not None:
        logger.info("%s %s: handed back", lease.table.__tablename__, lease.id)
        process.queue.put_or_leave([Waiting(lease.table, lease.id, dispatch)])


def _finish(process: Process, lease: Lease, state: State, **values: object) -> None:
    with process.sessions() as session:
        leases.finish(session, lease, state, **values)
        session.commit()
    logger.info("%s %s: %s", lease.table.__tablename__, lease.id, state)
