"""Statements about jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from app.core.db.scoping import project_of
from app.core.db.tables import Job
from app.http.lists import listed

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

_INSERT = insert(Job).returning(Job.state, Job.dispatch, Job.created_at, Job.updated_at)


def add(session: Session, *, metadata: dict[str, Any], **values: Any) -> Job:  # noqa: ANN401 - values of columns
    """Insert a job of the session's project; it belongs to no session, and has besides `values` what a client sees.

    Not by `session.add`: a flush takes as long for the row as all else that a submission does in the API's process.
    """
    given = {"metadata": metadata, "project_id": project_of(session), **values}
    stored = session.connection().execute(_INSERT, given).one()
    return Job(metadata_=metadata, **values, **stored._asdict())


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
