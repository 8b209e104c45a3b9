"""Answers that were given to requests with an Idempotency-Key, each project's apart."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, BigInteger, Text, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.db.scoping import project_of
from app.core.db.tables import IdempotentAnswer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that was given to the first request with a key."""

    key: str
    fingerprint: bytes
    status: int
    headers: dict[str, str]
    body: str


def lock(session: Session, keys: Collection[str]) -> set[str]:
    """Hold keys until the transaction ends; those of them that no other transaction holds."""
    if not keys:
        return set()
    numbers = [_number(session, key) for key in keys]
    both = func.unnest(cast(list(keys), ARRAY(Text)), cast(numbers, ARRAY(BigInteger)))
    asked = both.table_valued("key", "number").render_derived()
    rows = session.execute(select(asked.c.key, func.pg_try_advisory_xact_lock(asked.c.number)))
    return {key for key, held in rows if held}


def find(session: Session, keys: Collection[str], max_age_s: float) -> dict[str, Given]:
    """The answers that held keys got, if they are not older than that."""
    if not keys:
        return {}
    of_these = IdempotentAnswer.key.in_(keys)
    too_old = IdempotentAnswer.created_at < func.now() - timedelta(seconds=max_age_s)
    session.execute(delete(IdempotentAnswer).where(of_these, too_old))
    columns = (getattr(IdempotentAnswer, field.name) for field in fields(Given))
    return {row.key: Given(*row) for row in session.execute(select(*columns).where(of_these))}


def keep(session: Session, answers: Sequence[Given]) -> None:
    """Keep answers in the caller's transaction."""
    if answers:
        project_id = project_of(session)
        values = [{"project_id": project_id, **asdict(answer)} for answer in answers]
        session.execute(insert(IdempotentAnswer).on_conflict_do_nothing(), values)


def _number(session: Session, key: str) -> int:
    name = hashlib.sha256(f"{project_of(session)} {key}".encode()).digest()
    return int.from_bytes(name[:8], signed=True)


def forget(session: Session, max_age_s: float) -> None:
    """Delete the answers that are older than that, of all projects."""
    too_old = IdempotentAnswer.created_at < func.now() - timedelta(seconds=max_age_s)
    session.execute(delete(IdempotentAnswer).where(too_old))
    session.commit()
