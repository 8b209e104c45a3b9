"""`/jobs`: submit, list, look, cancel."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Query, Response, status

from app.db import shards
from app.db.tables import Stage, State
from app.dependencies import QueueDep, SessionDep, SettingsDep  # noqa: TC001
from app.job_request import EXAMPLE_REQUEST, JobRequest
from app.jobs import service
from app.jobs.schemas import EXAMPLE_JOB, JobResponse, Links
from app.openapi import example, problems
from app.problems import DatasetNotFound, InvalidRequest, JobFinished, JobNotFound, QuotaExceeded, TooLargeForQuota
from app.schema import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.db.shards import WorkerProgress
    from app.db.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"])

POLL_AFTER_S = 2
EXAMPLE_QUEUED = {**EXAMPLE_JOB, "state": "queued", "stage": None, "progress": None, "workers": []}
NOT_FOUND = (JobNotFound, f"No job has the id {EXAMPLE_JOB['id']}.")


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Submit a selection job",
    responses=example(202, "The job is stored and queued.", EXAMPLE_QUEUED)
    | problems(
        (TooLargeForQuota, "dataset: has 300000 rows, and a job of the project may have 100000: send fewer, or ..."),
        (QuotaExceeded, "jobs: 8 jobs of the project have not ended, and 8 may at once: wait for one, or ..."),
        (DatasetNotFound, "No dataset has the id 3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11: register it first."),
        (InvalidRequest, "selection.budget.fraction: Input should be less than or equal to 1 (got '1.5')"),
    ),
)
def submit(
    session: SessionDep,
    queue: QueueDep,
    settings: SettingsDep,
    response: Response,
    body: Annotated[JobRequest, Body(openapi_examples={"nightly": {"value": EXAMPLE_REQUEST}})],
) -> JobResponse:
    """Store a job and queue it. The answer comes at once; poll `Location` until `state` is final."""
    job = service.submit(session, queue, settings, body)
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_AFTER_S)
    return to_response(job)


@router.get(
    "",
    summary="List jobs",
    responses=example(200, "A page of jobs.", {"items": [EXAMPLE_JOB], "next_cursor": None})
    | problems((InvalidRequest, "cursor: is not a next_cursor that this service gave")),
)
def list_jobs(
    session: SessionDep,
    settings: SettingsDep,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=500, description="Jobs on a page.")] = None,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> Page[JobResponse]:
    """Jobs, newest first. Follow `next_cursor`: a page stays right while jobs are added."""
    jobs, next_cursor = service.list_jobs(session, state=state, limit=limit or settings.page_size, cursor=cursor)
    return Page(items=[to_response(job) for job in jobs], next_cursor=next_cursor)


@router.get(
    "/{job_id}",
    summary="Look at a job",
    responses=example(200, "The job.", EXAMPLE_JOB) | problems(NOT_FOUND),
)
def get(session: SessionDep, job_id: uuid.UUID, response: Response) -> JobResponse:
    """State, stage, progress; the result's numbers once it succeeded, the reason once it failed."""
    job = service.find_job(session, job_id)
    if not job.state.final:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return to_response(job, shards.workers(session, job.id) if job.stage in (Stage.GRADIENTS, Stage.SELECTING) else ())


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=example(200, "The job.", {**EXAMPLE_JOB, "cancel_requested": True})
    | problems(NOT_FOUND, (JobFinished, f"Job {EXAMPLE_JOB['id']} has succeeded and can't be cancelled.")),
)
def cancel(session: SessionDep, job_id: uuid.UUID) -> JobResponse:
    """Cancel a job. A running one stops within seconds; what it had computed is kept for other jobs."""
    return to_response(service.cancel(session, job_id))


def to_response(job: Job, workers: Sequence[WorkerProgress] = ()) -> JobResponse:
    """The job as clients see it."""
    url = f"/jobs/{job.id}"
    done = job.state is State.SUCCEEDED
    return JobResponse.model_validate(
        {
            **job.request,
            "id": job.id,
            "name": job.name,
            "metadata": job.metadata_,
            "state": job.state,
            "stage": job.stage,
            "progress": job.progress,
            "workers": workers,
            "cancel_requested": job.cancel_requested_at is not None,
            "error": job.error,
            "result": job.result,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "updated_at": job.updated_at,
            "links": Links(
                self=url,
                events=f"{url}/events",
                subset=f"{url}/subset" if done else None,
                curve=f"{url}/curve" if done else None,
                conflicts=f"{url}/conflicts" if done else None,
                rejected=f"{url}/rejected" if done else None,
            ),
        }
    )
