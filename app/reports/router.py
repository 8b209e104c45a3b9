"""`/jobs/{id}/statistics`, `/figures`, `/report`: a result to look at."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response

from app.core.contracts.statistics import Statistics  # noqa: TC001
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import SessionDep, SessionsDep  # noqa: TC001
from app.http.openapi import Responses, example, problems
from app.http.problems import (
    FigureNotFound,
    JobNotFound,
    ResultNotReady,
    RowsDamaged,
    RowsInRepair,
    StatisticsMissing,
    Unavailable,
)
from app.reports import service
from app.reports.document import figure_style
from app.reports.schemas import EXAMPLE_FIGURES, EXAMPLE_STATISTICS, FigureResponse, Figures
from app.results.job_files import JobFilesDep  # noqa: TC001
from app.results.schemas import JOB_ID
from app.results.service import finished_job

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.http.caching import Validators

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])

PROBLEMS = (
    (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
    (StatisticsMissing, f"Job {JOB_ID} was finished by a version that kept no statistics: submit it again."),
    (JobNotFound, f"No job has the id {JOB_ID}."),
)
# Reports and drawings run no script and load nothing, whatever text a dataset puts into them.
STILL = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
SVG = "image/svg+xml"
SVG_ANSWER: Responses = example(200, "The figure.", '<svg xmlns="http://www.w3.org/2000/svg">...</svg>', SVG)
HTML_ANSWER: Responses = example(200, "One HTML file.", "<!doctype html><title>nightly</title>...", "text/html")
Width = Annotated[int, Query(ge=280, le=1600, description="In pixels.")]


@router.get(
    "/statistics",
    summary="What the figures are drawn from",
    responses=example(200, "The statistics.", EXAMPLE_STATISTICS) | problems(*PROBLEMS),
)
def statistics(session: SessionDep, validators: ValidatorsDep, job_id: uuid.UUID) -> Statistics:
    """Conflict before and after, lengths and sources of picked rows against all, epsilon and conflict, early stop."""
    validators.result(finished_job(session, job_id))
    return service.statistics(session, job_id)


@router.get(
    "/figures",
    summary="The figures and the result in words",
    responses=example(200, "The figures.", EXAMPLE_FIGURES) | problems(*PROBLEMS),
)
def figures(
    sessions: SessionsDep, validators: ValidatorsDep, job_id: uuid.UUID, width: Width = 560, curve_width: Width = 1120
) -> Figures:
    """All figures of a job: SVG, caption, and the numbers behind each as a table; the result in plain words."""
    _tag(sessions, validators, job_id)
    shown = service.show(sessions, job_id, (width, curve_width))
    drawn = [FigureResponse.model_validate(figure) for figure in shown.figures[0]]
    return Figures(job_id=job_id, summary=list(shown.summary), figures=drawn)


@router.get(
    "/figures/{name}",
    summary="One figure",
    response_class=Response,
    responses=SVG_ANSWER
    | problems(*PROBLEMS[:2], (FigureNotFound, f"The dataset of job {JOB_ID} does not say where its rows are from.")),
)
def figure(
    sessions: SessionsDep,
    validators: ValidatorsDep,
    job_id: uuid.UUID,
    name: Literal["curve", "gains", "epsilon", "conflict", "lengths", "sources"],
    width: Width = 720,
) -> Response:
    """One figure as an SVG file that carries its own style, for light and dark."""
    headers = _tag(sessions, validators, job_id)
    shown = service.show(sessions, job_id, (width, width))
    found = next((one for one in shown.figures[0] if one.name == name), None)
    if found is None:
        raise FigureNotFound(f"The dataset of job {job_id} does not say where its rows are from.")
    content = found.svg.replace(">", f"><style>{figure_style()}</style>", 1)
    return Response(content, media_type=SVG, headers={**headers, "Content-Security-Policy": STILL})


@router.get(
    "/report",
    summary="The report",
    response_class=HTMLResponse,
    responses=HTML_ANSWER
    | problems(
        *PROBLEMS,
        (RowsInRepair, f"jobs/{JOB_ID}/excerpts.jsonl in the artifact store /var/spice is damaged ..."),
        (RowsDamaged, f"jobs/{JOB_ID}/excerpts.jsonl ... could not be made again: ... Submit the job again, ..."),
        (Unavailable, "the artifact store s3://bucket/spice could not read jobs/..."),
    ),
)
def report(sessions: SessionsDep, files: JobFilesDep, validators: ValidatorsDep, job_id: uuid.UUID) -> HTMLResponse:
    """One HTML file that needs nothing else: the result in words, the figures, settings, versions and hashes."""
    headers = _tag(sessions, validators, job_id)
    return HTMLResponse(
        service.report(sessions, files),
        headers={
            **headers,
            "Content-Security-Policy": STILL,
            "Content-Disposition": f'inline; filename="report-{job_id}.html"',
        },
    )


def _tag(sessions: Sessions, validators: Validators, job_id: uuid.UUID) -> dict[str, str]:
    """Headers of what is drawn: by the job's version, as a report shows its name.

    It is asked for again each time, as another version of the service may draw it otherwise.
    """
    with sessions() as session:
        return validators.polled(finished_job(session, job_id))
