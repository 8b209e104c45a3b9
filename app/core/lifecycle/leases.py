"""Claim, keep and end the work on a row: every statement is one conditional UPDATE.

A worker holds a row while `lease_expires_at` lies ahead on the database's clock (workers' clocks play no part).
Its statements name the lease token, so a worker that was taken for dead changes nothing when it comes back.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import CursorResult, and_, case, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB

from app.core.db.tables import Dataset, Estimate, Job, Part, Preview, Proof, ProofRun, Repair, Shard, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import BindParameter, ColumnElement
    from sqlalchemy.orm import Session

    from app.core.db.tables import Json

Work = (
    type[Dataset]
    | type[Estimate]
    | type[Job]
    | type[Part]
    | type[Preview]
    | type[Proof]
    | type[ProofRun]
    | type[Repair]
    | type[Shard]
)

SERVED: Mapping[str, tuple[Work, ...]] = {
    "selection": (Job, Part, Dataset, Preview, Proof, Repair),
    # Estimates are asked of the devices that compute gradients: they tell those devices' speed and memory.
    "gradients": (Shard, Estimate),
    "proofs": (ProofRun,),
}
"""The tables whose rows wait in each queue."""

TABLES: tuple[Work, ...] = tuple(chain.from_iterable(SERVED.values()))

OPEN = (State.QUEUED, State.RUNNING)

SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=60)
UNOBSERVED = timedelta(hours=1)
"""Longer than a store's own retries take."""

WORKER_LOST: Json = {
    "type": "worker-lost",
    "title": "The workers that ran this died",
    "detail": "Each attempt ended without a word from its worker: look for memory kills, then submit again.",
}


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's hold on a row, and what asked for the row."""

    table: Work
    id: uuid.UUID
    token: uuid.UUID
    origin: Json | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Signals:
    """What a heartbeat learns.

    Attributes:
        held: False once another worker may have the row.
        cancelled: True once the client asked to cancel.
    """

    held: bool
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that is due to be in the queue."""

    table: Work
    id: uuid.UUID
    dispatch: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Rows that were taken back from silent workers, each with the dispatch after the one that its worker had.

    Attributes:
        again: Those that go to the queue once more.
        ended: Those that were cancelled, or have failed too often.
    """

    again: list[Waiting]
    ended: list[Waiting]


def claim(
    session: Session,
    table: Work,
    row_id: uuid.UUID,
    dispatch: int,
    seconds: float,
    **values: Any,  # noqa: ANN401 - columns of any type
) -> Lease | None:
    """Take a queued row for `seconds`; None if it is not at this dispatch, or no longer queued."""
    token = uuid.uuid4()
    row = session.execute(
        update(table)
        .where(table.id == row_id, table.dispatch == dispatch, table.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            lease_token=token,
            lease_expires_at=func.now() + timedelta(seconds=seconds),
            started_at=func.coalesce(table.started_at, func.now()),
            **values,
        )
        .returning(table.origin)
    ).one_or_none()
    session.commit()
    return None if row is None else Lease(table, row_id, token, row.origin)


def extend(session: Session, lease: Lease, seconds: float, **values: Any) -> Signals:  # noqa: ANN401
    """Hold the row for another `seconds`, set columns (its progress), and hear whether to go on."""
    row = session.execute(
        update(lease.table)
        .where(*_held(lease))
        .values(lease_expires_at=func.now() + timedelta(seconds=seconds), **values)
        .returning(lease.table.cancel_requested_at)
    ).one_or_none()
    session.commit()
    return Signals(held=row is not None, cancelled=row is not None and row[0] is not None)


def finish(session: Session, lease: Lease, state: State, **values: Any) -> bool:  # noqa: ANN401
    """End the work in the caller's transaction. A success loses against a cancel that came before it.

    Returns:
        False, having changed nothing, if the row is no longer held or was cancelled before it succeeded.
    """
    conditions = list(_held(lease))
    if state is State.SUCCEEDED:
        conditions.append(lease.table.cancel_requested_at.is_(None))
    statement = update(lease.table).where(*conditions)
    released = {"lease_token": None, "lease_expires_at": None, "finished_at": func.now()}
    return bool(_execute(session, statement.values(state=state, **released, **values)).rowcount)


def hand_back(session: Session, lease: Lease) -> int | None:
    """Return a row to the queue unfinished (the worker shuts down), or end it if it was cancelled meanwhile.

    Returns:
        Its next dispatch; None if it is not to be queued.
    """
    row = session.execute(
        update(lease.table)
        .where(*_held(lease))
        .values(**_let_go(lease.table), queued_at=func.now())
        .returning(lease.table.dispatch, lease.table.state)
    ).one_or_none()
    session.commit()
    return row.dispatch if row is not None and row.state is State.QUEUED else None


def postpone(session: Session, lease: Lease, patience_s: float, operation: str) -> bool:
    """Return a row to the queue for later: something that its work needs is away, and may come back.

    The next try comes after as long as the outage has lasted, but within a minute. Nobody puts a message for it: the
    reconciler does once `queued_at` has passed.

    An outage is over once the work gets past the operation that failed. Work runs its operations in one order, so a
    failure of another operation begins another outage. So does a failure that comes more than `UNOBSERVED` (and more
    than `patience_s`) after the row was due: nobody has seen what was away for most of that time.

    Args:
        session: For this transaction alone.
        lease: The worker's hold on the row.
        patience_s: How long an outage may last.
        operation: What failed, as the store names it.

    Returns:
        False, having changed nothing, if the row is not held or the outage has lasted for `patience_s`.
    """
    table, patience = lease.table, timedelta(seconds=patience_s)
    goes_on = and_(table.outage_of == operation, table.queued_at > func.now() - max(patience, UNOBSERVED))
    since = case((goes_on, table.outage_since), else_=func.now())
    result = _execute(
        session,
        update(table)
        .where(*_held(lease), since >= func.now() - patience)
        .values(
            **_let_go(table),
            outage_since=since,
            outage_of=operation,
            queued_at=func.now() + func.least(func.greatest(func.now() - since, SHORTEST_WAIT), LONGEST_WAIT),
        ),
    )
    session.commit()
    return bool(result.rowcount)


def unwanted(session: Session, table: Work, row_id: uuid.UUID) -> bool:
    """Whether a row ended without a success, or is gone: what was made for it is of no use to anybody."""
    state = session.scalar(select(table.state).where(table.id == row_id))
    return state in (None, State.FAILED, State.CANCELLED)


def request_cancel(session: Session, table: Work, row_id: uuid.UUID) -> State | None:
    """Cancel a row that no worker holds at once, ask the worker of any other to stop; in the caller's transaction.

    Returns:
        The state that the row then has; None if there is no such row.
    """
    free = table.lease_token.is_(None)
    state = session.execute(
        update(table)
        .where(table.id == row_id, table.state.in_(OPEN))
        .values(
            cancel_requested_at=func.coalesce(table.cancel_requested_at, func.now()),
            state=case((free, _state(State.CANCELLED)), else_=table.state),
            finished_at=case((free, func.now()), else_=table.finished_at),
        )
        .returning(table.state)
    ).scalar_one_or_none()
    return state if state is not None else session.scalar(select(table.state).where(table.id == row_id))


def with_silent_workers(session: Session) -> list[Work]:
    """The tables with rows whose worker fell silent: asked of all at once, as mostly there is none."""
    silent = session.execute(select(*(exists().where(*_silent(table)) for table in TABLES))).one()
    return [table for table, any_silent in zip(TABLES, silent, strict=True) if any_silent]


def reclaim_expired(session: Session, table: Work, max_attempts: int) -> Reclaimed:
    """Take back the rows whose worker fell silent.

    A row goes to the queue again, ends cancelled if that was asked for, and fails after `max_attempts` workers
    died on it (a row that kills its worker must not kill them all).
    """
    exhausted = table.crashes + 1 >= max_attempts
    cancelled = table.cancel_requested_at.is_not(None)
    again = ~exhausted & ~cancelled
    rows = session.execute(
        update(table)
        .where(*_silent(table))
        .values(
            state=case(
                (cancelled, _state(State.CANCELLED)),
                (exhausted, _state(State.FAILED)),
                else_=_state(State.QUEUED),
            ),
            error=case((exhausted & ~cancelled, literal(WORKER_LOST, JSONB)), else_=None),
            finished_at=case((again, None), else_=func.now()),
            dispatch=table.dispatch + 1,
            crashes=table.crashes + 1,
            lease_token=None,
            lease_expires_at=None,
            queued_at=func.now(),
        )
        .returning(table.id, table.dispatch, table.state)
    ).all()
    session.commit()
    reclaimed = Reclaimed([], [])
    for row in rows:
        outcome = reclaimed.again if row.state is State.QUEUED else reclaimed.ended
        outcome.append(Waiting(table, row.id, row.dispatch))
    return reclaimed


def expire_all(session: Session) -> None:
    """Let every lease run out now: for a start when no worker of before can be alive."""
    for table in TABLES:
        session.execute(update(table).where(table.lease_token.is_not(None)).values(lease_expires_at=func.now()))
    session.commit()


def count_waiting_since(session: Session, seconds: float) -> dict[Work, int]:
    """Number of the rows of each table that have been queued for at least `seconds`."""
    counts = (select(func.count(table.id)).where(_waits_since(table, seconds)).scalar_subquery() for table in TABLES)
    return dict(zip(TABLES, session.execute(select(*counts)).one(), strict=True))


def waiting_since(session: Session, table: Work, seconds: float) -> list[Waiting]:
    """Rows that have been queued for at least `seconds`, oldest first."""
    statement = select(table.id, table.dispatch).where(_waits_since(table, seconds)).order_by(table.queued_at)
    return [Waiting(table, row.id, row.dispatch) for row in session.execute(statement)]


def _silent(table: Work) -> tuple[ColumnElement[bool], ...]:
    return table.state == State.RUNNING, table.lease_expires_at < func.now()


def _waits_since(table: Work, seconds: float) -> ColumnElement[bool]:
    return and_(table.state == State.QUEUED, table.queued_at < func.now() - timedelta(seconds=seconds))


def _state(state: State) -> BindParameter[State]:
    """A state as a value inside an expression, where SQLAlchemy can't tell its type from a column."""
    return literal(state, Job.__table__.c.state.type)


def _let_go(table: Work) -> dict[str, Any]:
    """What a row becomes when its worker lets go of it unfinished: nobody else would hear that it was cancelled."""
    cancelled = table.cancel_requested_at.is_not(None)
    return {
        "state": case((cancelled, _state(State.CANCELLED)), else_=_state(State.QUEUED)),
        "finished_at": case((cancelled, func.now()), else_=None),
        "dispatch": table.dispatch + 1,
        "lease_token": None,
        "lease_expires_at": None,
    }


def held_and_wanted(lease: Lease) -> tuple[Any, ...]:
    """Conditions: the worker holds the row, and nobody has cancelled it."""
    return *_held(lease), lease.table.cancel_requested_at.is_(None)


def _held(lease: Lease) -> tuple[Any, ...]:
    return lease.table.id == lease.id, lease.table.lease_token == lease.token, lease.table.state == State.RUNNING


def _execute(session: Session, statement: Any) -> CursorResult[Any]:  # noqa: ANN401
    result = session.execute(statement)
    assert isinstance(result, CursorResult)  # noqa: S101 - an UPDATE's result always is; tells mypy so
    return result
