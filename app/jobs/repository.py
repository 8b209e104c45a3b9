"""Statements about jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.db.tables import Job
from app.http.lists import listed

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Select


def jobs(
    *,
    dataset_id: uuid.UUID | None = None,
    dataset_uri: str | None = None,
    **filters: Any,  # noqa: ANN401 - as for `listed`
) -> Select[Job]:
    """Jobs for which all that is given holds, newest first.

    Args:
        dataset_id: Of the dataset that a job's request names by id.
        dataset_uri: As a job's request names the dataset.
        **filters: As for `app.http.lists.listed`.
    """
    statement = listed(Job, **filters)
    if dataset_id is not None:
        statement = statement.where(Job.dataset_id == dataset_id)
    if dataset_uri is not None:
        statement = statement.where(Job.request[("dataset", "uri")].astext == dataset_uri)
    return statement
