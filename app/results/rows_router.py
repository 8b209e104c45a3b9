"""`/jobs/{id}/rows`, `/rows/{row}/why`, `/suspects`, `/scores`: look through rows as text, take the figures of all."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from app.core.storage import excerpts_name, suspects_name
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import SessionsDep  # noqa: TC001
from app.http.openapi import Responses, example, problems
from app.http.problems import (
    InvalidRequest,
    JobNotFound,
    RangeNotSatisfiable,
    ResultNotReady,
    RowsDamaged,
    RowsGone,
    RowsInRepair,
    Unavailable,
)
from app.results.downloads import MEDIA_TYPES, PartAsked, scores_file
from app.results.job_files import JobFilesDep  # noqa: TC001
from app.results.rows_schemas import (
    EXAMPLE_FATE,
    EXAMPLE_ROWS,
    EXAMPLE_SUSPECTS,
    PickedRow,
    PickedRows,
    RowFate,
    SuspectRow,
    Suspects,
)
from app.results.rows_service import Asked, rows_of
from app.results.schemas import JOB_ID
from app.results.service import finished_job
from app.results.why import fate

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

NOT_THERE = (
    (JobNotFound, f"No job has the id {JOB_ID}."),
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
    (RowsGone, f"The rows of job {JOB_ID} are not in the artifact store any more; its indices are."),
    (
        RowsInRepair,
        f"jobs/{JOB_ID}/scores.parquet in the artifact store /var/spice is damaged ... A worker makes it again",
    ),
    (RowsDamaged, f"jobs/{JOB_ID}/scores.parquet ... could not be made again: ... Submit the job again, ..."),
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
    query: Annotated[
        str, Query(max_length=200, description="Only rows whose text has this in it, case and Unicode form aside.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="Rows on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=20, description="`next_cursor` of the page before.")] = None,
    source: Annotated[str | None, Query(max_length=400, description="Only rows from this source.")] = None,
) -> Asked:
    return Asked(query, limit, cursor, source)


async def _picks_asked(
    asked: Annotated[Asked, Depends(_asked)],
    first_rank: Annotated[int, Query(ge=1, le=2**53, description="Rank of the first pick that is looked at.")] = 1,
    last_rank: Annotated[int | None, Query(ge=1, le=2**53, description="Rank of the last.")] = None,
    min_gain: Annotated[float | None, Query(description="Only picks whose gain is at least so many nats.")] = None,
    min_conflict: Annotated[float | None, Query(description="Only picks whose conflict is at least this.")] = None,
) -> Asked:
    bounds = {"marginal_gain": min_gain, "conflict": min_conflict}
    at_least = {name: least for name, least in bounds.items() if least is not None}
    return replace(asked, first_rank=first_rank, last_rank=last_rank, at_least=at_least)


@router.get(
    "/rows",
    summary="Look through the picked rows",
    responses=example(200, "A page of rows.", EXAMPLE_ROWS) | problems(*NOT_THERE, CURSOR),
)
def rows(
    sessions: SessionsDep,
    files: JobFilesDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    asked: Annotated[Asked, Depends(_picks_asked)],
) -> PickedRows:
    """Picked rows as text, best pick first. One request looks through 8 MiB at most; `next_cursor` looks on."""
    with sessions() as session:
        job = finished_job(session, job_id)
        selected = (job.result or {})["selected"]
    validators.result(job)
    found = rows_of(files, excerpts_name(job_id), PickedRow, asked)
    return PickedRows(
        job_id=job_id,
        items=found.items,
        searched=found.searched,
        selected=selected,
        next_cursor=found.next_cursor,
    )


@router.get(
    "/rows/{row}/why",
    summary="Why a row was picked, or was not",
    responses=example(200, "What became of the row.", EXAMPLE_FATE)
    | problems(*NOT_THERE, (InvalidRequest, "row: is 900, and the rows go from 0 to 319")),
)
def why(
    sessions: SessionsDep,
    files: JobFilesDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    row: Annotated[int, Path(ge=0, le=2**53, description="Row number in the dataset, from 0.")],
) -> RowFate:
    """What a row would add to the selection, the pick that it is most like, and which filter or fault kept it out."""
    with sessions() as session:
        validators.result(finished_job(session, job_id))
    return fate(sessions, files, row)


@router.get(
    "/suspects",
    summary="Look through the rows that look wrong",
    responses=example(200, "A page of rows.", EXAMPLE_SUSPECTS) | problems(*NOT_THERE, CURSOR),
)
def suspects(
    sessions: SessionsDep,
    files: JobFilesDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    asked: Annotated[Asked, Depends(_asked)],
) -> Suspects:
    """Usable rows as text, those that look most wrong first, picked or not. The last ones may well be right."""
    with sessions() as session:
        job = finished_job(session, job_id)
        counted = (job.result or {}).get("suspects") or {}
    validators.result(job)
    found = rows_of(files, suspects_name(job_id), SuspectRow, asked)
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
    files: JobFilesDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    range: Annotated[str | None, Header(description="Bytes of the file, such as `bytes=1000-`.")] = None,  # noqa: A002
    if_range: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Parquet, in file order: row, loss, norm, cosine, ifd, end_loss, suspicion, suspect, picked, filtered, and more.

    More are `gain_at_end`, `nearest` and `nearest_cosine` of rows that were passed over, and what methods need.
    """
    with sessions() as session:
        job = finished_job(session, job_id)
    return scores_file(files, validators.download(job, "scores"), PartAsked(range, if_range))
