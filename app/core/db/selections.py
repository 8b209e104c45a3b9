"""Store and stream the picks of a selection, a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from app.core.db.tables import JobStatistics, RejectedRows, Selection, SelectionChunk

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.orm import InstrumentedAttribute, Session

    from app.core.db.engine import Sessions
    from app.core.db.tables import Json

MAIN = "main"
OPTIONAL = {"stability": "stability", "weights": "weight"}
"""Fields of picks that only some jobs have, with the names that they have of one pick."""
FILTERED = "filter:"
"""What the reasons of rows that a filter dropped begin with, beside those of rows that can't be used."""


@dataclass(frozen=True, slots=True)
class Picks:
    """Consecutive picks in the order of picking; all fields have one length.

    Attributes:
        indices: Row numbers in the dataset.
        marginal_gains: What each pick added to the log-det, in nats.
        epsilons: Marginal gain less base gain, in nats, at most 0.
        conflicts: Conflict with the picks before it, in [0, 1].
        log_det: Log-det of the picks up to and including this one, in nats.
        stability: Share of the reselections that pick each, in [0, 1], None for one that none had; None where none was
            made.
        weights: What each pick stands for; None by methods that give no weights.
    """

    indices: Sequence[int]
    marginal_gains: Sequence[float]
    epsilons: Sequence[float]
    conflicts: Sequence[float]
    log_det: Sequence[float]
    stability: Sequence[float | None] | None = None
    weights: Sequence[float] | None = None


COLUMNS: Mapping[str, InstrumentedAttribute[Any]] = {
    "indices": SelectionChunk.row_indices,
    "marginal_gains": SelectionChunk.marginal_gains,
    "epsilons": SelectionChunk.epsilons,
    "conflicts": SelectionChunk.conflicts,
    "log_det": SelectionChunk.log_det,
    "stability": SelectionChunk.stability,
    "weights": SelectionChunk.weights,
}


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a selection besides its picks.

    Attributes:
        label: `main`, or the name of a baseline.
        method: The method that made it.
        log_det: In nats.
        conflicts: Statistics, as `GET /jobs/{id}/conflicts` returns them.
        curve: At 1,000 ranks at most, the mean over all runs of a method that draws at random (the picks are those of
            the first), so that a figure need not read a million picks.
    """

    label: str
    method: str
    log_det: float
    conflicts: Json
    curve: Json


def store(session: Session, job_id: uuid.UUID, head: Head, picks: Picks, chunk_rows: int) -> None:
    """Insert a selection in the caller's transaction, `chunk_rows` picks a database row."""
    selected = len(picks.indices)
    session.execute(
        insert(Selection).values(
            job_id=job_id,
            label=head.label,
            method=head.method,
            selected=selected,
            log_det=head.log_det,
            conflicts=head.conflicts,
            curve=head.curve,
        )
    )
    for first in range(0, selected, chunk_rows):
        part = slice(first, first + chunk_rows)
        session.execute(
            insert(SelectionChunk).values(
                job_id=job_id,
                label=head.label,
                first_rank=first,
                row_indices=list(picks.indices[part]),
                marginal_gains=list(picks.marginal_gains[part]),
                epsilons=list(picks.epsilons[part]),
                conflicts=list(picks.conflicts[part]),
                log_det=list(picks.log_det[part]),
                stability=None if picks.stability is None else list(picks.stability[part]),
                weights=None if picks.weights is None else list(picks.weights[part]),
            )
        )


def store_rejected(
    session: Session, job_id: uuid.UUID, rows: Mapping[str, Sequence[int]], filtered: Mapping[str, Sequence[int]]
) -> None:
    """Insert the rows that could not be used and those that filters dropped, by reason, in the caller's transaction."""
    named = {**rows, **{FILTERED + reason: indices for reason, indices in filtered.items()}}
    for reason, indices in named.items():
        session.execute(insert(RejectedRows).values(job_id=job_id, reason=reason, row_indices=list(indices)))


def store_statistics(session: Session, job_id: uuid.UUID, document: Json) -> None:
    """Insert what the figures are drawn from, in the caller's transaction."""
    session.execute(insert(JobStatistics).values(job_id=job_id, document=document))


def statistics(session: Session, job_id: uuid.UUID) -> Json | None:
    """What the figures are drawn from; None for a job that was finished before they were kept."""
    return session.scalar(select(JobStatistics.document).where(JobStatistics.job_id == job_id))


def stream(sessions: Sessions, job_id: uuid.UUID, label: str = MAIN) -> Iterator[Picks]:
    """The picks, chunk by chunk; one chunk is in memory, and no connection is held between chunks."""
    for row in _chunks(sessions, job_id, label, tuple(COLUMNS.values())):
        yield Picks(*row)


def stream_column(sessions: Sessions, job_id: uuid.UUID, column: str, label: str = MAIN) -> Iterator[Sequence[float]]:
    """One field of the picks, chunk by chunk."""
    for (values,) in _chunks(sessions, job_id, label, (COLUMNS[column],)):
        yield values


def columns_of(sessions: Sessions, job_id: uuid.UUID) -> list[str]:
    """The fields of a job's picks: those of `OPTIONAL` only where there are any."""
    known = select(*(COLUMNS[name].is_not(None) for name in OPTIONAL)).where(
        SelectionChunk.job_id == job_id, SelectionChunk.label == MAIN, SelectionChunk.first_rank == 0
    )
    with sessions() as session:
        found = session.execute(known).one_or_none() or [False] * len(OPTIONAL)
    there = dict(zip(OPTIONAL, found, strict=True))
    return [name for name in COLUMNS if there.get(name, True)]


def _chunks(sessions: Sessions, job_id: uuid.UUID, label: str, columns: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """A statement a chunk, by the primary key: a slow client must not keep a connection of the pool."""
    first_rank = -1
    while True:
        statement = (
            select(SelectionChunk.first_rank, *columns)
            .where(
                SelectionChunk.job_id == job_id,
                SelectionChunk.label == label,
                SelectionChunk.first_rank > first_rank,
            )
            .order_by(SelectionChunk.first_rank)
            .limit(1)
        )
        with sessions() as session:
            row = session.execute(statement).one_or_none()
        if row is None:
            return
        first_rank, *values = row
        yield values


def heads(session: Session, job_id: uuid.UUID) -> Sequence[Selection]:
    """The selections of a job, the one asked for first."""
    rows = session.scalars(select(Selection).where(Selection.job_id == job_id)).all()
    return sorted(rows, key=lambda head: (head.label != MAIN, head.label))


def rejected(session: Session, job_id: uuid.UUID) -> Sequence[RejectedRows]:
    """The rows of a job that could not be used, or were dropped by a filter, by reason."""
    return session.scalars(
        select(RejectedRows).where(RejectedRows.job_id == job_id).order_by(RejectedRows.reason)
    ).all()
