"""`/jobs/{id}/subset`, `/curve`, `/conflicts`, `/rejected`."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from app.dependencies import ArtifactsDep, SessionDep, SessionsDep  # noqa: TC001
from app.openapi import Responses, example, problems
from app.problems import JobNotFound, NotAcceptable, ResultNotReady, RowsGone, Unavailable
from app.results import service
from app.results.formats import FORMATS
from app.results.rows import picked_rows
from app.results.schemas import (
    EXAMPLE_CONFLICTS,
    EXAMPLE_CURVE,
    EXAMPLE_SUBSET,
    JOB_ID,
    Conflicts,
    Curve,
    RejectedList,
)

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

SUBSET_RESPONSE: Responses = {
    200: {
        "description": "The picks, in the order of picking; or, with `rows=true`, the rows in file order.",
        "content": {known.media_type: {} for known in FORMATS} | {"application/json": {"example": EXAMPLE_SUBSET}},
    }
}
PROBLEMS = (
    (JobNotFound, f"No job has the id {JOB_ID}."),
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
)


@router.get(
    "/subset",
    summary="Download the subset",
    response_class=Response,
    responses=SUBSET_RESPONSE
    | problems(
        *PROBLEMS,
        (NotAcceptable, "Accept is 'image/png', but a subset comes as application/json, ..."),
        (RowsGone, f"The rows of job {JOB_ID} are not in the artifact store any more; its indices are."),
        (Unavailable, "the artifact store s3://bucket/spice could not read jobs/...: see SPICE_ARTIFACTS_URL"),
    ),
)
def subset(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    job_id: uuid.UUID,
    format: Annotated[  # noqa: A002 - the name in the query
        Literal["json", "ndjson", "csv", "parquet"] | None, Query(description="Instead of `Accept`.")
    ] = None,
    rows: Annotated[bool, Query(description="The picked rows themselves, in the dataset's own format.")] = False,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """The picked rows' indices with gain, epsilon, conflict and log-det; or the rows themselves."""
    with sessions() as session:
        job = service.finished_job(session, job_id)
    if rows:
        return picked_rows(artifacts, job)
    chosen = service.choose_format(format, accept)
    return StreamingResponse(
        chosen.write(sessions, job_id),
        media_type=chosen.media_type,
        headers={"Content-Disposition": f'attachment; filename="subset-{job_id}.{chosen.name}"', "Vary": "Accept"},
    )


@router.get(
    "/curve",
    summary="The log-det curve",
    responses=example(200, "The curve.", EXAMPLE_CURVE) | problems(*PROBLEMS),
)
def curve(
    sessions: SessionsDep,
    job_id: uuid.UUID,
    points: Annotated[int, Query(ge=1, le=100_000, description="At most this many points.")] = 1000,
) -> Curve:
    """Log-det and marginal gain against the number of picks, with those of the baselines."""
    return service.curve(sessions, job_id, points)


@router.get(
    "/conflicts",
    summary="The conflict statistics",
    responses=example(200, "The statistics.", EXAMPLE_CONFLICTS) | problems(*PROBLEMS),
)
def conflicts(session: SessionDep, job_id: uuid.UUID) -> Conflicts:
    """How much the picks' gradients pull against those picked before them."""
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
def rejected(session: SessionDep, job_id: uuid.UUID) -> RejectedList:
    """Every row that could not be used, by reason."""
    return service.rejected(session, job_id)
