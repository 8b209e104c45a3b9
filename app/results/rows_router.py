"""`/jobs/{id}/rows`: look through the picked rows."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from fastapi import APIRouter, Query

from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import ArtifactsDep, SessionsDep  # noqa: TC001
from app.http.openapi import example, problems
from app.http.problems import InvalidRequest, JobNotFound, ResultNotReady, RowsGone, Unavailable
from app.results import rows_service
from app.results.rows_schemas import EXAMPLE_ROWS, PickedRows
from app.results.schemas import JOB_ID
from app.results.service import finished_job

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])


@router.get(
    "/rows",
    summary="Look through the picked rows",
    responses=example(200, "A page of rows.", EXAMPLE_ROWS)
    | problems(
        (JobNotFound, f"No job has the id {JOB_ID}."),
        (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
        (RowsGone, f"The rows of job {JOB_ID} are not in the artifact store any more; its indices are."),
        (InvalidRequest, "cursor: is not a next_cursor that this service gave for this job"),
        (Unavailable, "the artifact store s3://bucket/spice could not read jobs/...: see SPICE_ARTIFACTS_URL"),
    ),
)
def rows(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    query: Annotated[str, Query(max_length=200, description="Only rows whose text has this in it, case aside.")] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="Rows on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=20, description="`next_cursor` of the page before.")] = None,
) -> PickedRows:
    """Picked rows as text, best pick first. One request looks through 8 MiB at most; `next_cursor` looks on."""
    with sessions() as session:
        job = finished_job(session, job_id)
        selected = (job.result or {})["selected"]
    validators.result(job)
    found = rows_service.picked_rows(artifacts, job_id, query, limit, cursor)
    return PickedRows(
        job_id=job_id,
        items=found.items,
        searched=found.searched,
        selected=selected,
        next_cursor=found.next_cursor,
    )
