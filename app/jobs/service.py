"""Submit, find, list, change, cancel and delete jobs."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func

from app.core.contracts.job_request import PRIORITIES
from app.core.db.scoping import project_of
from app.core.db.tables import Job, State
from app.core.lifecycle import deletion, leases, parking, quotas
from app.core.storage import StorageFailed, rows_prefix
from app.core.uris.datasets import UriRefused
from app.core.uris.models import check_adapter_uri, check_model_uri
from app.datasets.service import find_dataset
from app.http.paging import page_of
from app.http.problems import (
    FieldError,
    InvalidRequest,
    JobFinished,
    JobNotFinal,
    JobNotFound,
    QuotaExceeded,
    TooLargeForQuota,
    Unavailable,
)
from app.jobs import extending, purposes, repository
from app.webhooks.urls import WebhookRefused, check_webhook_url

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import JobRequest
    from app.core.contracts.schema import Changes
    from app.core.db.tables import Dataset
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore
    from app.http.filters import DatasetFilters, Filters


def submit(session: Session, settings: Settings, request: JobRequest) -> Job:
    """Store a job in the caller's transaction; its message goes out after the commit.

    If the queue does not answer, the reconciler sends the message later.

    Raises:
        InvalidRequest: A field is wrong, as far as the API can tell without reading the data.
        QuotaExceeded: The job exceeds a quota of the project.
        DatasetNotFound: `dataset.id` names none.
    """
    dataset = check(session, settings, request)
    if dataset is not None and (errors := purposes.token_errors(request, dataset)):
        raise InvalidRequest(*errors)
    return repository.add(
        session,
        id=uuid.uuid4(),
        name=request.name,
        metadata=dict(request.metadata),
        dataset_id=request.dataset.id,
        request=request.model_dump(mode="json", exclude={"name", "metadata", "expires_at"}),
        priority=PRIORITIES[request.priority],
        timeout_s=timeout_of(settings, request.timeout_s),
        rows=None if dataset is None else dataset.rows,
        expires_at=request.expires_at or default_expiry(settings),
    )


def check(session: Session, settings: Settings, request: JobRequest) -> Dataset | None:
    """Check what can be checked without reading the data; the errors are those of `submit`.

    Returns:
        The registered dataset that the request names.
    """
    dataset = None if request.dataset.id is None else find_dataset(session, request.dataset.id)
    errors = [*_uri_errors(session, settings, request), *([] if dataset is None else _dataset_errors(dataset, request))]
    errors += purposes.errors(session, settings, request.selection)
    errors += extending.errors(session, request)
    if errors:
        raise InvalidRequest(*errors)
    _check_quota(session, settings, None if dataset is None else dataset.rows)
    return dataset


def find_job(session: Session, job_id: uuid.UUID) -> Job:
    """A job by id; JobNotFound if there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(f"No job has the id {job_id}.")
    return job


def list_jobs(
    session: Session, filters: Filters, dataset: DatasetFilters, *, limit: int, cursor: str | None
) -> tuple[list[Job], str | None]:
    """A page of jobs, newest first, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one that this service gave.
    """
    statement = repository.jobs(**asdict(dataset), **asdict(filters))
    return page_of(session, statement, limit=limit, cursor=cursor)


def count_jobs(session: Session, filters: Filters, dataset: DatasetFilters) -> int:
    """All jobs for which the filters hold."""
    statement = (
        repository.jobs(**asdict(dataset), **asdict(filters)).order_by(None).with_only_columns(func.count(Job.id))
    )
    return session.scalar(statement) or 0


def change(session: Session, job_id: uuid.UUID, changes: Changes) -> Job:
    """Set what the client sent of name, metadata and expiry; JobNotFound if there is no such job."""
    job = find_job(session, job_id)
    for name, value in changes.given().items():
        setattr(job, name, value)
    session.commit()
    session.refresh(job)
    return job


def delete(session: Session, artifacts: ArtifactStore, job_id: uuid.UUID) -> None:
    """Delete a job that has ended, with its results, rows and events. Sketches stay for other jobs.

    Raises:
        JobNotFound: There is no such job.
        JobNotFinal: It has not ended.
        Unavailable: The rows can't be deleted; the job is still there.
    """
    if not find_job(session, job_id).state.final:
        raise JobNotFinal(f"Job {job_id} has not ended: cancel it with POST /jobs/{job_id}/cancel, then delete it.")
    try:
        artifacts.remove_all(rows_prefix(job_id))
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    deletion.delete_job(session, job_id)
    session.commit()


def cancel(session: Session, job_id: uuid.UUID) -> Job:
    """Cancel a job in the caller's transaction: a queued one at once, a running one when its worker hears of it.

    Raises:
        JobNotFound: There is no such job.
        JobFinished: It has succeeded or failed. (One that is cancelled stays so: that is no error.)
    """
    state = leases.request_cancel(session, Job, job_id)
    parking.drop_units(session)
    if state in (State.SUCCEEDED, State.FAILED):
        raise JobFinished(f"Job {job_id} has {state} and can't be cancelled.")
    return find_job(session, job_id)


def timeout_of(settings: Settings, wanted: float | None) -> float | None:
    """Seconds that a job or a proof may take: as asked for, but no more than the service's own limit."""
    return min((seconds for seconds in (wanted, settings.job_timeout_s) if seconds is not None), default=None)


def default_expiry(settings: Settings) -> datetime | None:
    """When a job or a proof expires whose request does not say."""
    age = settings.jobs_max_age_s
    return None if age is None else datetime.now(UTC) + timedelta(seconds=age)


def _check_quota(session: Session, settings: Settings, rows: int | None) -> None:
    excess = quotas.excess_of_submission(session, project_of(session), settings, rows)
    if excess is not None:
        problem = QuotaExceeded if excess.passes else TooLargeForQuota
        raise problem("dataset" if excess.limit.startswith("rows") else "jobs", excess.message, excess.limit)


def _uri_errors(session: Session, settings: Settings, request: JobRequest) -> list[FieldError]:
    errors = []
    if request.webhook is not None:
        try:
            check_webhook_url(request.webhook.url, settings)
        except WebhookRefused as refused:
            errors.append(FieldError(field="webhook.url", message=str(refused)))
    errors += purposes.uri_errors(session, settings, request.dataset, "dataset")
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
    """Check a request against the rows and columns of its registered dataset."""
    if dataset.state in (State.FAILED, State.CANCELLED):
        return [FieldError(field="dataset.id", message=f"could not be read: see GET /datasets/{dataset.id}")]
    errors = []
    count = request.selection.budget.count
    if dataset.rows is not None and count is not None and count > dataset.rows:
        message = f"is {count}, more than the dataset's {dataset.rows} rows"
        errors.append(FieldError(field="selection.budget.count", message=message))
    if dataset.columns is not None:
        errors += purposes.column_errors(request.dataset, dataset.columns, "dataset")
    errors += purposes.constraint_errors(request, dataset)
    return errors
