"""`/jobs/{id}/statistics`: what a job's figures are drawn from."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations

from fastapi import APIRouter

from app.dependencies import SessionDep  # noqa: TC001
from app.openapi import example, problems
from app.problems import JobNotFound, ResultNotReady
from app.reports import service
from app.reports.schemas import EXAMPLE_STATISTICS, Statistics
from app.results.schemas import JOB_ID

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

PROBLEMS = (
    (JobNotFound, f"No job has the id {JOB_ID}."),
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
)


@router.get(
    "/statistics",
    summary="What the figures are drawn from",
    responses=example(200, "The statistics.", EXAMPLE_STATISTICS) | problems(*PROBLEMS),
)
def statistics(session: SessionDep, job_id: uuid.UUID) -> Statistics:
    """Conflict before and after, lengths and sources of picked rows against all, epsilon and conflict, early stop."""
    return service.statistics(session, job_id)
