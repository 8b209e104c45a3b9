"""What the statements of all lists have in common: newest first, and the filters that every list takes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Select, select

from app.core.db.tables import Dataset, Job, Proof

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from app.core.db.tables import State

Listed = TypeVar("Listed", Dataset, Job, Proof)


def listed(  # noqa: PLR0913 - one parameter for each filter
    table: type[Listed],
    *,
    states: Sequence[State] = (),
    name: str | None = None,
    name_prefix: str | None = None,
    metadata: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    id_prefix: str | None = None,
) -> Select[Listed]:
    """The statement for the rows that meet all given filters."""
    statement = select(table).order_by(table.created_at.desc(), table.id.desc())
    if states:
        statement = statement.where(table.state.in_(states) if len(states) > 1 else table.state == states[0])
    if name is not None:
        statement = statement.where(table.name == name)
    if name_prefix is not None:
        statement = statement.where(table.name.startswith(name_prefix, autoescape=True))
    if metadata:
        statement = statement.where(table.metadata_.contains(dict(metadata)))
    if created_after is not None:
        statement = statement.where(table.created_at > created_after)
    if created_before is not None:
        statement = statement.where(table.created_at < created_before)
    if id_prefix is not None:
        digits = id_prefix.replace("-", "")
        lowest, highest = (uuid.UUID(digits.ljust(32, filler)[:32]) for filler in "0f")
        statement = statement.where(table.id.between(lowest, highest))
    return statement
