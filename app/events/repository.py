"""Read the events of jobs and of proofs. Triggers write them (see `JobEvent` and `ProofEvent`)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, BigInteger, column, exists, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import UUID

from app.core.db.tables import EventKind, Job, JobEvent, Json, Proof, ProofEvent, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

Place = tuple[uuid.UUID, int]
"""A job or a proof, and the id of the last of its events that a listener has."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job or a proof.

    Attributes:
        id: Larger than that of any earlier event of it.
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


def after(session: Session, place: Place, limit: int) -> list[Event]:
    """At most `limit` events of a job or a proof after a place, oldest first."""
    found = after_each(session, [place], limit).get(place, [])
    return found[:limit]


def after_each(session: Session, places: Sequence[Place], limit: int) -> dict[Place, list[Event]]:
    """The events after each of many places, in one statement if all of them are jobs.

    Returns:
        The places with new events; a place whose job or proof is gone has an empty list.
    """
    found = _after_each(session, places, limit, Job)
    if no_jobs := [place for place, events in found.items() if not events]:
        found = {place: events for place, events in found.items() if events}
        found |= _after_each(session, no_jobs, limit, Proof)
    return found


def _after_each(
    session: Session, places: Sequence[Place], limit: int, table: type[Job] | type[Proof]
) -> dict[Place, list[Event]]:
    """The new events of rows of one table; none where it has no such row."""
    ids, lasts = zip(*places, strict=True)
    watched = (
        func.unnest(literal(list(ids), ARRAY(UUID)), literal(list(lasts), ARRAY(BigInteger)))
        .table_valued(column("of", UUID), column("last", BigInteger), name="watched")
        .render_derived()
    )
    kept: type[JobEvent] | type[ProofEvent] = JobEvent if table is Job else ProofEvent
    owner = JobEvent.job_id if table is Job else ProofEvent.proof_id
    newer = (
        select(kept.id, kept.at, kept.kind, kept.data)
        .where(owner == watched.c.of, kept.id > watched.c.last)
        .order_by(kept.id)
        .limit(limit)
        .lateral("newer")
    )
    statement = (
        select(watched.c.of, watched.c.last, newer)
        .select_from(watched.outerjoin(newer, true()))
        .where(or_(newer.c.id.is_not(None), ~exists().where(table.id == watched.c.of)))
    )
    return _by_place(session.execute(statement))


def _by_place(rows: Iterable[Row[uuid.UUID, int, int | None, datetime, EventKind, Json]]) -> dict[Place, list[Event]]:
    found: dict[Place, list[Event]] = {}
    for of, last, event_id, at, kind, data in rows:
        events = found.setdefault((of, last), [])
        if event_id is not None:
            events.append(Event(event_id, at, kind, data))
    return {place: sorted(events, key=lambda event: event.id) for place, events in found.items()}
