"""`/estimates`: what a job would take, before it is submitted."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from fastapi import APIRouter, Body, Response

from app.core.contracts.job_request import EXAMPLE_REQUEST, JobRequest
from app.http.dependencies import SessionDep, SettingsDep  # noqa: TC001
from app.http.idempotency import OnceDep  # noqa: TC001
from app.http.openapi import example, problems
from app.http.problems import DatasetNotFound, EstimateNotFound, InvalidRequest, NotRunnable, QuotaExceeded
from app.jobs import estimates
from app.jobs.schemas import EXAMPLE_ESTIMATE, EstimateResponse

router = APIRouter(prefix="/estimates", tags=["jobs"])

NOT_YET = {"id": EXAMPLE_ESTIMATE["id"], "state": "running"}
ANSWERS = example(200, "What the job would take.", EXAMPLE_ESTIMATE) | example(
    202, "No worker has made it yet: it will be at `Location`.", NOT_YET
)
REFUSED = (
    NotRunnable,
    "none of the 100 rows can be used: 100 empty_response (row 0, 1, 2, ...). Repair the rows",
)


@router.post(
    "",
    response_model=EstimateResponse,
    summary="Estimate what a job would take",
    responses=ANSWERS
    | problems(
        REFUSED,
        (QuotaExceeded, "datasets: 50 datasets, previews and estimates of the project are not read yet, and 50 ..."),
        (DatasetNotFound, "No dataset has the id 3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11: register it first."),
        (InvalidRequest, "selection.budget.fraction: Input should be less than or equal to 1 (got '1.5')"),
    ),
)
async def estimate(
    once: OnceDep,
    settings: SettingsDep,
    body: Annotated[JobRequest, Body(openapi_examples={"nightly": {"value": EXAMPLE_REQUEST}})],
) -> Response:
    """Have a worker check everything that needs no gradients, and tell time, tokens, bytes and memory of the job.

    Waits for it up to 25 s; one that takes longer will be at `Location`. What would fail the job is a 422 with the
    problem that the job would have.
    """
    return await estimates.answered(once, settings, body)


@router.get(
    "/{estimate_id}",
    response_model=EstimateResponse,
    summary="Look at an estimate",
    responses=ANSWERS
    | problems(REFUSED, (EstimateNotFound, f"No estimate has the id {EXAMPLE_ESTIMATE['id']}: ask for another one.")),
)
def get(session: SessionDep, estimate_id: uuid.UUID) -> Response:
    """The estimate, once a worker has made it. It is kept for a day."""
    return estimates.response_of(estimates.find(session, estimate_id))
