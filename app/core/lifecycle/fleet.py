"""Queue depths, running jobs and living workers of the whole service, read from Postgres."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Double, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.db.tables import Job, Shard, State, Worker
from app.core.lifecycle.leases import SERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

ALIVE_S = 35.0
"""Seconds since it was seen that a worker counts as alive: it tells every 10."""
FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Backlog:
    """The rows that wait in a queue.

    Attributes:
        depth: Rows that are queued.
        oldest_s: Seconds that the oldest of them has waited; 0 if none waits.
    """

    depth: int
    oldest_s: float


def backlog(session: Session) -> dict[str, Backlog]:
    """What waits, by queue."""
    found = {}
    for queue, tables in SERVED.items():
        counted = [
            session.execute(
                select(
                    func.count(),
                    # What waits out an outage is queued for a moment that lies ahead.
                    func.greatest(func.extract("epoch", func.now() - func.min(table.queued_at)), 0.0),
                ).where(table.state == State.QUEUED)
            ).one()
            for table in tables
        ]
        found[queue] = Backlog(sum(row[0] for row in counted), max(float(row[1]) for row in counted))
    return found


def jobs_by_state(session: Session) -> dict[State, int]:
    """How many jobs are in each state."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    return dict.fromkeys(State, 0) | {row[0]: row[1] for row in rows}


def speed(session: Session) -> tuple[float, float]:
    """Samples and tokens a second that all workers together compute gradients of right now."""
    progress = Shard.progress
    samples, tokens = session.execute(
        select(
            func.coalesce(func.sum(progress["rate"].astext.cast(Double)), 0.0),
            func.coalesce(func.sum(progress["tokens_per_s"].astext.cast(Double)), 0.0),
        ).where(Shard.state == State.RUNNING)
    ).one()
    return float(samples), float(tokens)


def appear(session: Session, name: str, queues: Sequence[str]) -> None:
    """Note that a worker is alive, by Postgres's clock; forget those long gone; commits."""
    statement = insert(Worker).values(name=name, queues=list(queues))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Worker.name], set_={"queues": statement.excluded.queues, "seen_at": func.now()}
        )
    )
    session.execute(delete(Worker).where(Worker.seen_at < func.now() - FORGOTTEN))
    session.commit()


def leave(session: Session, name: str) -> None:
    """Note that a worker has ended in order; commits."""
    session.execute(delete(Worker).where(Worker.name == name))
    session.commit()


def alive(session: Session) -> dict[str, int]:
    """How many workers serve each queue."""
    queue = func.unnest(Worker.queues).label("queue")
    living = select(queue).where(Worker.seen_at > func.now() - timedelta(seconds=ALIVE_S)).subquery()
    rows = session.execute(select(living.c.queue, func.count()).group_by(living.c.queue)).all()
    return dict.fromkeys(SERVED, 0) | {row[0]: row[1] for row in rows}
