"""API keys: make, find by prefix, list, revoke."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select, update

from app.core.db.tables import ApiKey, Project

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from app.access.secrets import NewSecret
    from app.core.db.tables import Scope

USED_EVERY_S = 60
"""Seconds between two notes of when a key was used: a request must not cost a write."""


def create(
    session: Session, project: Project, secret: NewSecret, name: str, scope: Scope, expires_at: datetime | None
) -> ApiKey:
    """Store a key of a project, and commit."""
    key = ApiKey(
        project_id=project.id,
        name=name,
        scope=scope,
        prefix=secret.prefix,
        secret_hash=secret.digest,
        expires_at=expires_at,
    )
    session.add(key)
    session.commit()
    return key


def usable(session: Session, prefix: str) -> Row[ApiKey, Project] | None:
    """The key of a prefix, and its project; None if it was revoked or has expired by Postgres's clock."""
    return session.execute(
        select(ApiKey, Project)
        .join(Project, Project.id == ApiKey.project_id)
        .where(
            ApiKey.prefix == prefix,
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
        )
    ).one_or_none()


def note_use(session: Session, key_id: uuid.UUID) -> None:
    """Note that a key was used, at most once in USED_EVERY_S; commits."""
    stale = func.now() - timedelta(seconds=USED_EVERY_S)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < stale))
        .values(last_used_at=func.now())
    )
    session.commit()


def listed(session: Session, project: str | None) -> Sequence[Row[ApiKey, str]]:
    """Keys of one project, or of all projects, each with its project's name, newest first."""
    statement = select(ApiKey, Project.name.label("project")).join(Project, Project.id == ApiKey.project_id)
    if project is not None:
        statement = statement.where(Project.name == project)
    return session.execute(statement.order_by(ApiKey.created_at.desc(), ApiKey.prefix)).all()


def revoke(session: Session, prefix: str) -> bool:
    """Revoke a key, and commit; False if no key has this prefix."""
    revoked = session.scalar(
        update(ApiKey)
        .where(ApiKey.prefix == prefix)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
        .returning(ApiKey.id)
    )
    session.commit()
    return revoked is not None


def any_usable(session: Session) -> bool:
    """Whether any key is valid."""
    usable_ones = ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
    return session.scalar(select(ApiKey.id).where(*usable_ones).limit(1)) is not None
