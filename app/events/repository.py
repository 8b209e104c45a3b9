"""Read the events of jobs. Triggers write them (see `JobEvent`)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, BigInteger, column, exists, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import UUID

from app.core.db.tables import EventKind, Job, JobEvent, Json, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

Place = tuple[uuid.UUID, int]
"""A job, and the id of the last of its events that a listener has."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job.

    Attributes:
        id: Larger than that of any earlier event of the job.
        at: When it happened, on the database's clock.
        kind: What `data` tells.
        data: `state`, `cancel_requested` and `error`; or `stage`; or `stage` and the fields of a progress.
    """

    id: int
    at: datetime
    kind: EventKind
    data: Json

    @property
    def final(self) -> bool:
        """Whether no event follows this one."""
        return self.kind is EventKind.STATE and State(self.data["state"]).final


COLUMNS = (JobEvent.id, JobEvent.at, JobEvent.kind, JobEvent.data)


def after(session: Session, place: Place, limit: int) -> list[Event]:
    """At most `limit` events of a job after a place, oldest first."""
    job_id, last = place
    statement = select(*COLUMNS).where(JobEvent.job_id == job_id, JobEvent.id > last)
    return [Event(*row) for row in session.execute(statement.order_by(JobEvent.id).limit(limit))]


def after_each(session: Session, places: Sequence[Place], limit: int) -> dict[Place, list[Event]]:
    """The events after each of many places, in one statement.

    Returns:
        The places with new events; a place whose job is gone has an empty list.
    """
    ids, lasts = zip(*places, strict=True)
    watched = (
        func.unnest(literal(list(ids), ARRAY(UUID)), literal(list(lasts), ARRAY(BigInteger)))
        .table_valued(column("job_id", UUID), column("last", BigInteger), name="watched")
        .render_derived()
    )
    newer = (
        select(*COLUMNS)
        .where(JobEvent.job_id == watched.c.job_id, JobEvent.id > watched.c.last)
        .order_by(JobEvent.id)
        .limit(limit)
        .lateral("newer")
    )
    statement = (
        select(watched.c.job_id, watched.c.last, newer)
        .select_from(watched.outerjoin(newer, true()))
        .where(or_(newer.c.id.is_not(None), ~exists().where(Job.id == watched.c.job_id)))
    )
    return _by_place(session.execute(statement))


def _by_place(rows: Iterable[Row[uuid.UUID, int, int | None, datetime, EventKind, Json]]) -> dict[Place, list[Event]]:
    found: dict[Place, list[Event]] = {}
    for job_id, last, event_id, at, kind, data in rows:
        events = found.setdefault((job_id, last), [])
        if event_id is not None:
            events.append(Event(event_id, at, kind, data))
    return {place: sorted(events, key=lambda event: event.id) for place, events in found.items()}
