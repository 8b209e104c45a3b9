"""Answers that were given to requests with an Idempotency-Key, each project's apart."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.db.scoping import project_of
from app.db.tables import IdempotentAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session


def lock(session: Session, key: str) -> bool:
    """Hold a key until the transaction ends; False if another transaction holds it."""
    name = hashlib.sha256(f"{project_of(session)} {key}".encode()).digest()
    number = int.from_bytes(name[:8], signed=True)
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(number))))


def find(session: Session, key: str, max_age_s: float) -> IdempotentAnswer | None:
    """The answer that a held key got, if it is not older than that."""
    too_old = IdempotentAnswer.created_at < func.now() - timedelta(seconds=max_age_s)
    session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.key == key, too_old))
    return session.scalar(select(IdempotentAnswer).where(IdempotentAnswer.key == key))


def keep(session: Session, key: str, fingerprint: bytes, *, status: int, headers: Mapping[str, str], body: str) -> None:
    """Keep an answer in the caller's transaction."""
    session.execute(
        insert(IdempotentAnswer)
        .values(
            project_id=project_of(session),
            key=key,
            fingerprint=fingerprint,
            status=status,
            headers=dict(headers),
            body=body,
        )
        .on_conflict_do_nothing()
    )


def forget(session: Session, max_age_s: float) -> None:
    """Delete the answers that are older than that, of all projects."""
    too_old = IdempotentAnswer.created_at < func.now() - timedelta(seconds=max_age_s)
    session.execute(delete(IdempotentAnswer).where(too_old))
    session.commit()
