"""The webhook messages of ended jobs; a trigger makes each due with the final state (see `Job.webhook`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import false, func, select, update

from app.core.db.tables import Job, Json, Project, State

if TYPE_CHECKING:
    import uuid
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Due:
    """A message to send.

    Attributes:
        job_id: The job that has ended.
        project_id: The project whose secrets sign the message.
        rotations: Numbers of the project's valid secrets, the newest first.
        url: The receiver.
        attempt: Number of this attempt, from 1.
        state: The final state.
        at: Time of the final state.
        data: The job's fields in the message.
    """

    job_id: uuid.UUID
    project_id: uuid.UUID
    rotations: tuple[int, ...]
    url: str
    attempt: int
    state: State
    at: datetime
    data: Json


def take_due(session: Session, most: int, *, hold_s: float, lane: int, under_way: Mapping[uuid.UUID, int]) -> list[Due]:
    """Take due messages, the longest due first; no other process takes them for `hold_s` seconds. Commits.

    Args:
        session: Sees all projects.
        most: Number to take.
        hold_s: Seconds after which a message is due again, unless its attempt is recorded.
        lane: Most attempts of one project at a time.
        under_way: Attempts under way, by project.
    """
    due = []
    place = func.row_number().over(partition_by=Job.project_id, order_by=Job.webhook_due_at).label("place")
    ranked = select(Job.id, Job.project_id, Job.webhook_due_at, place).where(Job.webhook_due_at <= func.now())
    first = ranked.subquery()
    found = session.execute(select(first).where(first.c.place <= lane).order_by(first.c.webhook_due_at)).all()
    ids = [row.id for row in found if row.place <= lane - under_way.get(row.project_id, 0)][: max(most, 0)]
    jobs = session.scalars(
        select(Job)
        .where(Job.id.in_(ids), Job.webhook_due_at <= func.now())
        .order_by(Job.webhook_due_at)
        .with_for_update(skip_locked=True)
    ).all()
    rotations = _rotations(session, {job.project_id for job in jobs})
    for job in jobs:
        attempt = (job.webhook or {}).get("attempts", 0) + 1
        job.webhook = {**(job.webhook or {}), "attempts": attempt}
        job.webhook_due_at = func.now() + timedelta(seconds=hold_s)
        due.append(_due(job, attempt, rotations[job.project_id]))
    session.commit()
    return due


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
        update(Job)
        .where(Job.id == due.job_id, Job.webhook["attempts"].as_integer() == due.attempt)
        .values(webhook={"attempts": due.attempt, **outcome}, webhook_due_at=due_at)
    )
    session.commit()


def _due(job: Job, attempt: int, rotations: tuple[int, ...]) -> Due:
    assert job.finished_at is not None  # noqa: S101 - what ends a job sets both
    data = {
        "id": str(job.id),
        "name": job.name,
        "metadata": job.metadata_,
        "state": job.state,
        "error": job.error,
        "url": f"/jobs/{job.id}",
    }
    return Due(
        job.id,
        job.project_id,
        rotations,
        job.request["webhook"]["url"],
        attempt,
        job.state,
        job.finished_at,
        data,
    )


def _rotations(session: Session, project_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[int, ...]]:
    """The numbers of the webhook secrets that each project uses now, the newest first."""
    both = func.coalesce(Project.webhook_overlap_until > func.now(), false())
    rows = session.execute(select(Project.id, Project.webhook_rotation, both).where(Project.id.in_(project_ids)))
    return {id_: (rotation, rotation - 1) if overlaps else (rotation,) for id_, rotation, overlaps in rows}
