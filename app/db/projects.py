"""Projects: make, find, list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from app.db.tables import ApiKey, Job, Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session


class ProjectExists(Exception):
    """A project of that name is there already."""


def create(session: Session, name: str) -> Project:
    """Make a project, and commit.

    Raises:
        ProjectExists: There is one of that name.
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
    """Set limits of a project by column, None for the settings', and commit; None if there is no such project."""
    project = find(session, name)
    if project is not None:
        for column, value in limits.items():
            setattr(project, column, value)
        session.commit()
    return project


def find(session: Session, name: str) -> Project | None:
    """A project by its name."""
    return session.scalar(select(Project).where(Project.name == name))


def listed(session: Session) -> Sequence[Row[Project, int, int]]:
    """Every project with the number of its jobs and of its keys, by name."""
    jobs = select(func.count()).where(Job.project_id == Project.id).scalar_subquery()
    keys = select(func.count()).where(ApiKey.project_id == Project.id, ApiKey.revoked_at.is_(None)).scalar_subquery()
    return session.execute(select(Project, jobs.label("jobs"), keys.label("keys")).order_by(Project.name)).all()
