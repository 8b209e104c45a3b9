"""Statements of the lists, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Select, select

from app.core.db.tables import Dataset, Job

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from app.core.db.tables import State

Listed = TypeVar("Listed", Dataset, Job)


def listed(
    table: type[Listed],
    *,
    states: Sequence[State] = (),
    name: str | None = None,
    name_prefix: str | None = None,
    metadata: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
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
    return statement


def over_dataset(
    statement: Select[Job], *, dataset_id: uuid.UUID | None = None, dataset_uri: str | None = None
) -> Select[Job]:
    """Restrict a list of jobs to those whose request names this dataset."""
    if dataset_id is not None:
        statement = statement.where(Job.dataset_id == dataset_id)
    if dataset_uri is not None:
        statement = statement.where(Job.request[("dataset", "uri")].astext == dataset_uri)
    return statement


def at_uri(statement: Select[Dataset], uri: str | None) -> Select[Dataset]:
    """Restrict a list of datasets to those at this URI."""
    return statement if uri is None else statement.where(Dataset.uri == uri)
