"""Projects: make, find, list."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from app.core.db.tables import ApiKey, Job, Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session


class ProjectExists(Exception):
    """A project of this name exists already."""


def create(session: Session, name: str) -> Project:
    """Make a project, and commit.

    Raises:
        ProjectExists: A project of this name exists already.
    """
    project = Project(name=name)
    session.add(project)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise ProjectExists(name) from error
    return project


def limit(session: Session, name: str, limits: dict[str, int | None]) -> Project | None:
    """Set limits of a project by column, and commit; a limit of None falls back to the settings.

    Returns:
        The project, or None if no project has this name.
    """
    project = find(session, name)
    if project is not None:
        for column, value in limits.items():
            setattr(project, column, value)
        session.commit()
    return project


def replace_webhook_secret(session: Session, project: Project, overlap_s: float) -> int:
    """Sign a project's webhooks with a new secret, and for a while with the old secret too; commit.

    Returns:
        Number of the secret, as `app.webhooks.signing` takes it.
    """
    rotation = session.scalar(
        update(Project)
        .where(Project.id == project.id)
        .values(
            webhook_rotation=Project.webhook_rotation + 1,
            webhook_overlap_until=func.now() + timedelta(seconds=overlap_s),
        )
        .returning(Project.webhook_rotation)
    )
    session.commit()
    return rotation or 0


def find(session: Session, name: str) -> Project | None:
    """A project by its name."""
    return session.scalar(select(Project).where(Project.name == name))


def listed(session: Session) -> Sequence[Row[Project, int, int]]:
    """Every project with the number of its jobs and of its keys, by name."""
    jobs = select(func.count()).where(Job.project_id == Project.id).scalar_subquery()
    keys = select(func.count()).where(ApiKey.project_id == Project.id, ApiKey.revoked_at.is_(None)).scalar_subquery()
    return session.execute(select(Project, jobs.label("jobs"), keys.label("keys")).order_by(Project.name)).all()
