"""`/jobs`: submit, list, look, change, cancel, delete."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Body, Query, Response, status

from app.core.contracts.job_request import EXAMPLE_REQUEST, JobRequest
from app.core.contracts.schema import Changes  # noqa: TC001 - FastAPI reads the annotations
from app.core.db.tables import Job, Stage
from app.core.lifecycle import parking
from app.core.lifecycle.leases import Waiting
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import ArtifactsDep, SessionDep, SessionsDep, SettingsDep  # noqa: TC001
from app.http.filters import METADATA_PARAMETER, DatasetFiltersDep, FiltersDep
from app.http.idempotency import Answer, OnceDep
from app.http.openapi import empty, example, problems
from app.http.paging import Cursor, Limit  # noqa: TC001
from app.http.problems import (
    DatasetNotFound,
    InvalidRequest,
    JobFinished,
    JobNotFinal,
    JobNotFound,
    NotRunnable,
    QuotaExceeded,
    TooLargeForQuota,
    Unavailable,
)
from app.jobs import estimates, service
from app.jobs.response import to_response
from app.jobs.schemas import EXAMPLE_ESTIMATE, EXAMPLE_JOB, JobResponse, JobsPage

router = APIRouter(prefix="/jobs", tags=["jobs"])

POLL_AFTER_S = 2
EXAMPLE_QUEUED = {**EXAMPLE_JOB, "state": "queued", "stage": None, "progress": None, "workers": []}
NOT_FOUND = (JobNotFound, f"No job has the id {EXAMPLE_JOB['id']}.")


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobResponse,
    summary="Submit a selection job",
    responses=example(202, "The job is stored and queued.", EXAMPLE_QUEUED)
    | example(200, "With `dry_run`: what the job would take, as `POST /estimates` tells it.", EXAMPLE_ESTIMATE)
    | problems(
        (NotRunnable, "With `dry_run`: ..., as the job would fail."),
        (TooLargeForQuota, "dataset: has 300000 rows, and a job of the project may have 100000: send fewer, or ..."),
        (QuotaExceeded, "jobs: 8 jobs of the project have not ended, and 8 may at once: wait for one, or ..."),
        (DatasetNotFound, "No dataset has the id 3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11: register it first."),
        (InvalidRequest, "selection.budget.fraction: Input should be less than or equal to 1 (got '1.5')"),
    ),
)
async def submit(
    settings: SettingsDep,
    once: OnceDep,
    body: Annotated[JobRequest, Body(openapi_examples={"nightly": {"value": EXAMPLE_REQUEST}})],
    *,
    dry_run: Annotated[bool, Query(description="Only estimate what it takes: no job is made.")] = False,
) -> Response:
    """Store a job and queue it. The answer comes at once; poll `Location` until `state` is final."""
    if dry_run:
        return await estimates.answered(once, settings, body)

    def accepted(job: Job) -> Answer:
        return Answer(
            to_response(job),
            status.HTTP_202_ACCEPTED,
            {"Location": f"/jobs/{job.id}", "Retry-After": str(POLL_AFTER_S)},
            queued=[Waiting(Job, job.id, job.dispatch)],
        )

    return await to_thread.run_sync(once.answer, lambda session: service.submit(session, settings, body), accepted)


@router.get(
    "",
    summary="List jobs",
    openapi_extra=METADATA_PARAMETER,
    responses=example(200, "A page of jobs.", {"items": [EXAMPLE_JOB], "next_cursor": None})
    | problems((InvalidRequest, "cursor: is not a next_cursor that this service gave")),
)
def list_jobs(  # noqa: PLR0913, PLR0917 - one parameter for each of the query
    session: SessionDep,
    settings: SettingsDep,
    validators: ValidatorsDep,
    filters: FiltersDep,
    dataset: DatasetFiltersDep,
    limit: Limit = None,
    cursor: Cursor = None,
    total: Annotated[bool, Query(description="Also count all jobs for which the filters hold.")] = False,
) -> JobsPage:
    """Jobs, newest first, for which all filters hold. Follow `next_cursor`: a page stays right while jobs are added."""
    jobs, next_cursor = service.list_jobs(session, filters, dataset, limit=limit or settings.page_size, cursor=cursor)
    counted = service.count_jobs(session, filters, dataset) if total else None
    validators.polled(*jobs, also=[next_cursor, counted])
    return JobsPage(items=[to_response(job) for job in jobs], next_cursor=next_cursor, total=counted)


@router.get(
    "/{job_id}",
    response_model=JobResponse,
    summary="Look at a job",
    responses=example(200, "The job.", EXAMPLE_JOB) | problems(NOT_FOUND),
)
def get(sessions: SessionsDep, job_id: uuid.UUID, validators: ValidatorsDep) -> Response:
    """State, stage, progress; the result's numbers once it succeeded, the reason once it failed."""
    with sessions() as session:
        job = service.find_job(session, job_id)
        headers = validators.polled(job)
        workers = parking.workers_of(session, job.id) if job.stage in (Stage.GRADIENTS, Stage.SELECTING) else ()
    if not job.state.final:
        headers |= {"Retry-After": str(POLL_AFTER_S)}
    # Written here: of a model FastAPI would make the answer on a thread of its own, and what polls is most of the load.
    return Response(
        to_response(job, workers).model_dump_json(warnings=False), headers=headers, media_type="application/json"
    )


@router.patch(
    "/{job_id}",
    summary="Change name, metadata or expiry",
    responses=example(200, "The job.", EXAMPLE_JOB)
    | problems(NOT_FOUND, (InvalidRequest, "expires_at: must lie in the future")),
)
def change(
    session: SessionDep,
    job_id: uuid.UUID,
    body: Annotated[
        Changes, Body(openapi_examples={"rename": {"value": {"name": "nightly, kept", "expires_at": None}}})
    ],
) -> JobResponse:
    """Change what a job is called and how long it is kept; what is left out stays as it is."""
    return to_response(service.change(session, job_id, body))


@router.delete(
    "/{job_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a job",
    responses=empty(204, "It is gone, with its results, rows and events.")
    | problems(
        NOT_FOUND,
        (JobNotFinal, f"Job {EXAMPLE_JOB['id']} has not ended: cancel it first."),
        (Unavailable, "the artifact store /var/spice could not delete jobs/...: let the service write there"),
    ),
)
def delete(session: SessionDep, artifacts: ArtifactsDep, job_id: uuid.UUID) -> None:
    """Delete a job that has ended. The sketches that it used stay for other jobs, until retention takes them."""
    service.delete(session, artifacts, job_id)


@router.post(
    "/{job_id}/cancel",
    response_model=JobResponse,
    summary="Cancel a job",
    responses=example(200, "The job.", {**EXAMPLE_JOB, "cancel_requested": True})
    | problems(NOT_FOUND, (JobFinished, f"Job {EXAMPLE_JOB['id']} has succeeded and can't be cancelled.")),
)
def cancel(once: OnceDep, job_id: uuid.UUID) -> Response:
    """Cancel a job. A running one stops within seconds; what it had computed is kept for other jobs."""
    return once.answer(
        lambda session: service.cancel(session, job_id), lambda job: Answer(to_response(job), status.HTTP_200_OK)
    )
