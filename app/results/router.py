"""`/jobs/{id}/subset`, `/curve`, `/conflicts`, `/rejected`, `/league`."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import SessionDep, SessionsDep, SettingsDep  # noqa: TC001
from app.http.openapi import Responses, example, problems
from app.http.problems import (
    FieldError,
    InvalidRequest,
    JobNotFound,
    NotAcceptable,
    RangeNotSatisfiable,
    ResultNotReady,
    RowsDamaged,
    RowsGone,
    RowsInRepair,
    Unavailable,
)
from app.results import service
from app.results.changes import changes
from app.results.downloads import PartAsked, picked_rows, subset_file
from app.results.formats import FORMATS
from app.results.job_files import JobFilesDep  # noqa: TC001
from app.results.league import league as league_of
from app.results.schemas import (
    EXAMPLE_CHANGES,
    EXAMPLE_CONFLICTS,
    EXAMPLE_CURVE,
    EXAMPLE_LEAGUE,
    EXAMPLE_SUBSET,
    JOB_ID,
    Conflicts,
    Curve,
    League,
    RejectedList,
)

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

SUBSET_RESPONSES: Responses = {
    200: {
        "description": "The picks, in the order of picking; or, with `rows=true`, the rows in file order.",
        "content": {known.media_type: {} for known in FORMATS}
        | {
            "application/json": {
                "examples": {"picks": {"value": EXAMPLE_SUBSET}, "with since": {"value": EXAMPLE_CHANGES}}
            }
        },
    },
    206: {
        "description": "The bytes asked for with `Range`; `multipart/byteranges` if those are several ranges.",
        "content": {known.media_type: {} for known in FORMATS}
        | {"multipart/byteranges": {}, "application/json": {"example": '"indices":[812,40,77'}},
    },
}
PROBLEMS = (
    (JobNotFound, f"No job has the id {JOB_ID}."),
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which file of a subset, and whether a part of it.

    Attributes:
        format: Instead of `accept`.
        rows: The picked rows themselves.
        accept: The media types that the client takes.
        part: Whether bytes of it are asked for.
        since: Another job: what is asked for is what changed since its subset.
    """

    format: str | None
    rows: bool
    accept: str | None
    part: PartAsked
    since: uuid.UUID | None = None


async def _asked(
    format: Annotated[  # noqa: A002 - the parameter's name
        Literal["json", "ndjson", "csv", "parquet"] | None, Query(description="Instead of `Accept`.")
    ] = None,
    rows: Annotated[bool, Query(description="The picked rows themselves, in the dataset's own format.")] = False,
    accept: Annotated[str | None, Header()] = None,
    range: Annotated[  # noqa: A002 - likewise
        str | None, Header(description="Bytes of the file, such as `bytes=1000-`, with `If-Range`.")
    ] = None,
    if_range: Annotated[str | None, Header(include_in_schema=False)] = None,
    since: Annotated[
        uuid.UUID | None,
        Query(description="Another job: instead of the subset, what was added and removed since that job's, as JSON."),
    ] = None,
) -> Asked:
    if since is not None and (rows or format not in (None, "json")):
        raise InvalidRequest(FieldError(field="since", message="comes as JSON alone: leave rows and format out"))
    return Asked(format, rows, accept, PartAsked(range, if_range), since)


@router.get(
    "/subset",
    summary="Download the subset",
    response_class=Response,
    responses=SUBSET_RESPONSES
    | problems(
        *PROBLEMS,
        (NotAcceptable, "Accept is 'image/png', but a subset comes as application/json, ..."),
        (RowsGone, f"The rows of job {JOB_ID} are not in the artifact store any more; its indices are."),
        (
            RowsInRepair,
            f"jobs/{JOB_ID}/rows.jsonl in the artifact store /var/spice is damaged ... A worker makes it again",
        ),
        (RowsDamaged, f"jobs/{JOB_ID}/rows.jsonl ... could not be made again: ... Submit the job again, ..."),
        (RangeNotSatisfiable, "Range: 'bytes=9000-' begins beyond the end of the file, which has 8214 bytes: ..."),
        (Unavailable, "the artifact store s3://bucket/spice could not read jobs/...: see SPICE_ARTIFACTS_URL"),
    ),
)
def subset(
    sessions: SessionsDep,
    files: JobFilesDep,
    settings: SettingsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    asked: Annotated[Asked, Depends(_asked)],
) -> Response:
    """The picked rows' indices with gain, epsilon, conflict and log-det; or the rows themselves."""
    with sessions() as session:
        job = service.finished_job(session, job_id)
        if asked.since is not None:
            service.finished_job(session, asked.since)
    if asked.since is not None:
        found = changes(sessions, files, replace(files, job_id=asked.since))
        return JSONResponse(found.model_dump(mode="json"))
    if asked.rows:
        return picked_rows(files, job, validators.download(job), asked.part)
    chosen = service.choose_format(asked.format, asked.accept)
    headers = {**validators.download(job, chosen.name), "Vary": "Accept"}
    if asked.part.range is not None:
        return subset_file(files, sessions, settings.cache_path, chosen, headers, asked.part)
    name = f"subset-{job_id}.{chosen.name}"
    headers |= {"Content-Disposition": f'attachment; filename="{name}"', "Accept-Ranges": "bytes"}
    return StreamingResponse(chosen.write(sessions, job_id), media_type=chosen.media_type, headers=headers)


@router.get(
    "/curve",
    summary="The log-det curve",
    responses=example(200, "The curve.", EXAMPLE_CURVE) | problems(*PROBLEMS),
)
def curve(
    sessions: SessionsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    points: Annotated[int, Query(ge=1, le=100_000, description="At most this many points.")] = 1000,
) -> Curve:
    """Log-det and marginal gain against the number of picks, with those of the baselines."""
    with sessions() as session:
        validators.result(service.finished_job(session, job_id))
    return service.curve(sessions, job_id, points)


@router.get(
    "/conflicts",
    summary="The conflict statistics",
    responses=example(200, "The statistics.", EXAMPLE_CONFLICTS) | problems(*PROBLEMS),
)
def conflicts(session: SessionDep, validators: ValidatorsDep, job_id: uuid.UUID) -> Conflicts:
    """How much the picks' gradients pull against those picked before them."""
    validators.result(service.finished_job(session, job_id))
    return service.conflicts(session, job_id)


@router.get(
    "/rejected",
    summary="Rows that could not be used",
    responses=example(
        200,
        "Row numbers by reason.",
        {"job_id": JOB_ID, "rejected": [{"reason": "empty_response", "rows": [17, 4021]}]},
    )
    | problems(*PROBLEMS),
)
def rejected(session: SessionDep, validators: ValidatorsDep, job_id: uuid.UUID) -> RejectedList:
    """Every row that could not be used, by reason."""
    validators.result(service.finished_job(session, job_id))
    return service.rejected(session, job_id)


@router.get(
    "/league",
    summary="The methods side by side",
    responses=example(200, "The league table.", EXAMPLE_LEAGUE) | problems(*PROBLEMS),
)
def league(session: SessionDep, job_id: uuid.UUID) -> League:
    """The method and its baselines by log-det, coverage of the target, conflict, tokens, sources, overlap and proofs.

    A proof that ends adds its verdicts, so unlike a result the table may change.
    """
    return league_of(session, job_id)
