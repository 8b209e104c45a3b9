"""`/jobs/{id}/rows`, `/suspects`, `/scores`: look through rows as text, and take the figures of all."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from app.core.storage import excerpts_name, suspects_name
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import ArtifactsDep, SessionsDep  # noqa: TC001
from app.http.openapi import Responses, example, problems
from app.http.problems import (
    InvalidRequest,
    JobNotFound,
    RangeNotSatisfiable,
    ResultNotReady,
    RowsGone,
    Unavailable,
)
from app.results.downloads import MEDIA_TYPES, PartAsked, scores_file
from app.results.rows_schemas import (
    EXAMPLE_ROWS,
    EXAMPLE_SUSPECTS,
    PickedRow,
    PickedRows,
    SuspectRow,
    Suspects,
)
from app.results.rows_service import Asked, rows_of
from app.results.schemas import JOB_ID
from app.results.service import finished_job

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

NOT_THERE = (
    (JobNotFound, f"No job has the id {JOB_ID}."),
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
    (RowsGone, f"The rows of job {JOB_ID} are not in the artifact store any more; its indices are."),
    (Unavailable, "the artifact store s3://bucket/spice could not read jobs/...: see SPICE_ARTIFACTS_URL"),
)
CURSOR = (InvalidRequest, "cursor: is not a next_cursor that this service gave for this job")


SCORES: Responses = {
    200: {
        "description": "One row for each usable row of the dataset.",
        "content": {MEDIA_TYPES["parquet"]: {"example": "PAR1..."}},
    },
    206: {"description": "The bytes asked for with `Range`.", "content": {MEDIA_TYPES["parquet"]: {}}},
}


async def _asked(
    query: Annotated[str, Query(max_length=200, description="Only rows whose text has this in it, case aside.")] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="Rows on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=20, description="`next_cursor` of the page before.")] = None,
) -> Asked:
    return Asked(query, limit, cursor)


@router.get(
    "/rows",
    summary="Look through the picked rows",
    responses=example(200, "A page of rows.", EXAMPLE_ROWS) | problems(*NOT_THERE, CURSOR),
)
def rows(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    asked: Annotated[Asked, Depends(_asked)],
) -> PickedRows:
    """Picked rows as text, best pick first. One request looks through 8 MiB at most; `next_cursor` looks on."""
    with sessions() as session:
        job = finished_job(session, job_id)
        selected = (job.result or {})["selected"]
    validators.result(job)
    found = rows_of(artifacts, job_id, excerpts_name(job_id), PickedRow, asked)
    return PickedRows(
        job_id=job_id,
        items=found.items,
        searched=found.searched,
        selected=selected,
        next_cursor=found.next_cursor,
    )


@router.get(
    "/suspects",
    summary="Look through the rows that look wrong",
    responses=example(200, "A page of rows.", EXAMPLE_SUSPECTS) | problems(*NOT_THERE, CURSOR),
)
def suspects(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    asked: Annotated[Asked, Depends(_asked)],
) -> Suspects:
    """Usable rows as text, those that look most wrong first, picked or not. The last ones may well be right."""
    with sessions() as session:
        job = finished_job(session, job_id)
        counted = (job.result or {}).get("suspects") or {}
    validators.result(job)
    found = rows_of(artifacts, job_id, suspects_name(job_id), SuspectRow, asked)
    return Suspects(
        job_id=job_id,
        items=found.items,
        searched=found.searched,
        listed=counted.get("listed", 0),
        next_cursor=found.next_cursor,
    )


@router.get(
    "/scores",
    summary="Download the figures of every row",
    response_class=Response,
    responses=SCORES
    | problems(
        *NOT_THERE,
        (RangeNotSatisfiable, "Range: 'bytes=9000-' begins beyond the end of the file, which has 8214 bytes: ..."),
    ),
)
def scores(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    range: Annotated[str | None, Header(description="Bytes of the file, such as `bytes=1000-`.")] = None,  # noqa: A002
    if_range: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Parquet with the columns row, loss, norm, cosine, ifd, suspicion, suspect, picked and filtered, in file order."""
    with sessions() as session:
        job = finished_job(session, job_id)
    return scores_file(artifacts, job_id, validators.download(job, "scores"), PartAsked(range, if_range))
