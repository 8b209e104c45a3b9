"""The clock that all hosts share: Postgres's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def now(session: Session) -> float:
    """Seconds since 1970 on Postgres's clock."""
    return float(session.scalars(select(func.extract("epoch", func.clock_timestamp()))).one())
