"""Submit, find, list and cancel jobs."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING

from sqlakeyset import BadBookmark, PageSerializationError, select_page, unserialize_bookmark
from sqlalchemy import select

from app.datasets.service import find_dataset
from app.db import leases, quotas, shards
from app.db.leases import Waiting
from app.db.scoping import project_of
from app.db.tables import Job, State
from app.model_uris import check_adapter_uri, check_model_uri
from app.problems import FieldError, InvalidRequest, JobFinished, JobNotFound, QuotaExceeded, TooLargeForQuota
from app.uris import UriRefused, check_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.db.tables import Dataset
    from app.job_request import Columns, JobRequest
    from app.queue import TaskQueue
    from app.settings import Settings


def submit(session: Session, queue: TaskQueue, settings: Settings, request: JobRequest) -> Job:
    """Store a job and put it into the queue.

    The row is the promise: if the queue does not answer, the reconciler puts it there later.

    Raises:
        InvalidRequest: A field can't be right, as far as can be known without reading the data.
        QuotaExceeded: The project may not use more, now or ever.
        DatasetNotFound: `dataset.id` names none.
    """
    dataset = None if request.dataset.id is None else find_dataset(session, request.dataset.id)
    errors = [*_uri_errors(settings, request), *([] if dataset is None else _dataset_errors(dataset, request))]
    if errors:
        raise InvalidRequest(*errors)
    _check_quota(session, settings, None if dataset is None else dataset.rows)
    job = Job(
        id=uuid.uuid4(),
        name=request.name,
        metadata_=dict(request.metadata),
        dataset_id=request.dataset.id,
        request=request.model_dump(mode="json", exclude={"name", "metadata"}),
        timeout_s=min((s for s in (request.timeout_s, settings.job_timeout_s) if s is not None), default=None),
        rows=None if dataset is None else dataset.rows,
    )
    session.add(job)
    session.commit()
    queue.put_or_leave(Waiting(Job, job.id, job.dispatch))
    return job


def find_job(session: Session, job_id: uuid.UUID) -> Job:
    """A job by id; JobNotFound if there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(f"No job has the id {job_id}.")
    return job


def list_jobs(
    session: Session, *, state: State | None, limit: int, cursor: str | None
) -> tuple[Sequence[Job], str | None]:
    """A page of jobs, newest first, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one that this service gave.
    """
    statement = select(Job).order_by(Job.created_at.desc(), Job.id.desc())
    if state is not None:
        statement = statement.where(Job.state == state)
    page = select_page(session, statement, per_page=limit, page=None if cursor is None else _checked(cursor))  # type: ignore[type-var]  # its bound leaves out entities, which it returns
    jobs = [row[0] for row in page]
    return jobs, page.paging.bookmark_next if page.paging.has_next else None


def cancel(session: Session, job_id: uuid.UUID) -> Job:
    """Cancel a job: a queued one at once, a running one as soon as its worker hears of it (seconds).

    Raises:
        JobNotFound: There is no such job.
        JobFinished: It has succeeded or failed. (One that is cancelled stays so: that is no error.)
    """
    state = leases.request_cancel(session, Job, job_id)
    shards.drop_finished(session)
    if state in (State.SUCCEEDED, State.FAILED):
        raise JobFinished(f"Job {job_id} has {state} and can't be cancelled.")
    return find_job(session, job_id)


def _check_quota(session: Session, settings: Settings, rows: int | None) -> None:
    excess = quotas.excess_of_submission(session, project_of(session), settings, rows)
    if excess is not None:
        problem = QuotaExceeded if excess.passes else TooLargeForQuota
        raise problem("dataset" if excess.limit.startswith("rows") else "jobs", excess.message, excess.limit)


def _checked(cursor: str) -> str:
    """The cursor, if it marks a place in this list: what it holds goes into a statement."""
    try:
        marker = unserialize_bookmark(cursor)
        place = marker.place
        valid = place is not None and [type(value) for value in place] == [datetime, uuid.UUID] and not marker.backwards
    except (BadBookmark, PageSerializationError, ValueError):
        valid = False
    if not valid:
        raise InvalidRequest(FieldError(field="cursor", message="is not a next_cursor that this service gave"))
    return cursor


def _uri_errors(settings: Settings, request: JobRequest) -> list[FieldError]:
    errors = []
    if request.dataset.uri is not None:
        try:
            check_uri(request.dataset.uri, settings, request.dataset.format)
        except UriRefused as refused:
            errors.append(FieldError(field="dataset.uri", message=str(refused)))
    adapter = request.gradients.adapter
    try:
        check_model_uri(request.model.uri, settings)
    except UriRefused as refused:
        errors.append(FieldError(field="model.uri", message=str(refused)))
    try:
        if adapter is not None:
            check_adapter_uri(adapter.uri, settings)
    except UriRefused as refused:
        errors.append(FieldError(field="gradients.adapter.uri", message=str(refused)))
    return errors


def _dataset_errors(dataset: Dataset, request: JobRequest) -> list[FieldError]:
    """What a registered dataset tells before any worker looks at it again."""
    if dataset.state in (State.FAILED, State.CANCELLED):
        return [FieldError(field="dataset.id", message=f"could not be read: see GET /datasets/{dataset.id}")]
    errors = []
    count = request.selection.budget.count
    if dataset.rows is not None and count is not None and count > dataset.rows:
        message = f"is {count}, more than the dataset's {dataset.rows} rows"
        errors.append(FieldError(field="selection.budget.count", message=message))
    if dataset.columns is not None and request.dataset.columns is not None:
        errors.extend(_column_errors(request.dataset.columns, dataset.columns))
    return errors


def _column_errors(wanted: Columns, present: Sequence[str]) -> list[FieldError]:
    return [
        FieldError(
            field=f"dataset.columns.{role}",
            message=f"names {column!r}, but the columns are {', '.join(present)}",
        )
        for role, column in wanted.model_dump(exclude_none=True).items()
        if column not in present
    ]
