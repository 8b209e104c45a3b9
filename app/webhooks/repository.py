"""The webhook messages of ended jobs and proofs; a trigger makes each due with the final state (see `Job.webhook`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import false, func, select, update

from app.core.db.tables import Job, Json, Project, Proof, State

if TYPE_CHECKING:
    import uuid
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Due:
    """A message to send.

    Attributes:
        table: Jobs or proofs.
        id: The job or the proof that has ended.
        project_id: The project whose secrets sign the message.
        rotations: Numbers of the project's valid secrets, the newest first.
        url: The receiver.
        attempt: Number of this attempt, from 1.
        state: The final state.
        at: Time of the final state.
        data: The job's or proof's fields in the message.
    """

    table: type[Job] | type[Proof]
    id: uuid.UUID
    project_id: uuid.UUID
    rotations: tuple[int, ...]
    url: str
    attempt: int
    state: State
    at: datetime
    data: Json

    @property
    def kind(self) -> str:
        """`job` or `proof`."""
        return "job" if self.table is Job else "proof"


def take_due(session: Session, most: int, *, hold_s: float, lane: int, under_way: Mapping[uuid.UUID, int]) -> list[Due]:
    """Take due messages, the longest due first; no other process takes them for `hold_s` seconds. Commits.

    Args:
        session: Sees all projects.
        most: Number to take.
        hold_s: Seconds after which a message is due again, unless its attempt is recorded.
        lane: Most attempts of one project at a time.
        under_way: Attempts under way, by project.
    """
    due: list[Due] = []
    sent = Counter(under_way)
    tables: tuple[type[Job] | type[Proof], ...] = (Job, Proof)
    for table in tables:
        rows = _due_rows(session, table, most - len(due), lane, sent)
        rotations = _rotations(session, {row.project_id for row in rows})
        for row in rows:
            attempt = (row.webhook or {}).get("attempts", 0) + 1
            row.webhook = {**(row.webhook or {}), "attempts": attempt}
            row.webhook_due_at = func.now() + timedelta(seconds=hold_s)
            due.append(_due(row, attempt, rotations[row.project_id]))
            sent[row.project_id] += 1
    session.commit()
    return due


def _due_rows(
    session: Session, table: type[Job] | type[Proof], most: int, lane: int, under_way: Mapping[uuid.UUID, int]
) -> Sequence[Job | Proof]:
    """Rows of one table whose messages are due, in the order of their lanes, locked."""
    place = func.row_number().over(partition_by=table.project_id, order_by=table.webhook_due_at).label("place")
    ranked = select(table.id, table.project_id, table.webhook_due_at, place).where(table.webhook_due_at <= func.now())
    first = ranked.subquery()
    found = session.execute(select(first).where(first.c.place <= lane).order_by(first.c.webhook_due_at)).all()
    ids = [row.id for row in found if row.place <= lane - under_way.get(row.project_id, 0)][: max(most, 0)]
    rows = session.scalars(
        select(table)
        .where(table.id.in_(ids), table.webhook_due_at <= func.now())
        .order_by(table.webhook_due_at)
        .with_for_update(skip_locked=True)
    ).all()
    return cast("Sequence[Job | Proof]", rows)


def delivered(session: Session, due: Due, status: int | None) -> None:
    """Record that a message was delivered; commits."""
    _note(session, due, {"state": "delivered", "status": status, "error": None}, None)


def failed(session: Session, due: Due, status: int | None, error: str, again_s: float | None) -> None:
    """Record a failed attempt, and the time of the next one; None gives the message up. Commits."""
    _note(
        session, due, {"state": "failed" if again_s is None else "pending", "status": status, "error": error}, again_s
    )


def _note(session: Session, due: Due, outcome: Json, again_s: float | None) -> None:
    """Update the message, unless this attempt took longer than `hold_s` and another process has taken the message."""
    due_at: Any = None if again_s is None else func.now() + timedelta(seconds=again_s)
    session.execute(
        update(due.table)
        .where(due.table.id == due.id, due.table.webhook["attempts"].as_integer() == due.attempt)
        .values(webhook={"attempts": due.attempt, **outcome}, webhook_due_at=due_at)
    )
    session.commit()


def _due(row: Job | Proof, attempt: int, rotations: tuple[int, ...]) -> Due:
    assert row.finished_at is not None  # noqa: S101 - what ends a row sets both
    data: Json = {
        "id": str(row.id),
        "name": row.name,
        "metadata": row.metadata_,
        "state": row.state,
        "error": row.error,
        "url": f"/{row.__tablename__}/{row.id}",
    }
    if isinstance(row, Proof) and row.result is not None:
        data["verdicts"] = [
            {name: comparison[name] for name in ("arm", "against", "metric", "verdict")}
            for comparison in row.result["comparisons"]
        ]
    return Due(
        type(row),
        row.id,
        row.project_id,
        rotations,
        row.request["webhook"]["url"],
        attempt,
        row.state,
        row.finished_at,
        data,
    )


def _rotations(session: Session, project_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[int, ...]]:
    """The numbers of the webhook secrets that each project uses now, the newest first."""
    both = func.coalesce(Project.webhook_overlap_until > func.now(), false())
    rows = session.execute(select(Project.id, Project.webhook_rotation, both).where(Project.id.in_(project_ids)))
    return {id_: (rotation, rotation - 1) if overlaps else (rotation,) for id_, rotation, overlaps in rows}
