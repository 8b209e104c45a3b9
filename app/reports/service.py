"""Read what a job's figures are drawn from, draw them, and make a report of it all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.contracts.statistics import Statistics
from app.core.db import selections
from app.core.storage import excerpts_name
from app.http.problems import RowsGone, StatisticsMissing
from app.jobs.response import to_response
from app.reports.document import Report, render
from app.reports.figures import draw_figures
from app.reports.words import summary
from app.results import service as results
from app.results.league import league as league_of
from app.results.rows_schemas import PickedRow
from app.results.rows_service import Asked, rows_of
from app.results.service import finished_job

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.core.contracts.job_result import JobResult
    from app.core.db.engine import Sessions
    from app.jobs.schemas import JobResponse
    from app.reports.figures import Figure
    from app.results.job_files import JobFiles

CURVE_POINTS = 400
"""Points of a line: more than a figure has pixels to show."""

REPORT_WIDTH, PHONE_WIDTH = 720.0, 300.0
REPORT_ROWS = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """A job's result for people: the job, words and figures, at each width that was asked for."""

    job: JobResponse
    result: JobResult
    summary: Sequence[str]
    figures: Sequence[Sequence[Figure]]


def statistics(session: Session, job_id: uuid.UUID) -> Statistics:
    """The statistics of a finished job.

    Raises:
        JobNotFound: There is no such job.
        ResultNotReady: It has not succeeded.
        StatisticsMissing: It was finished by a version that kept none.
    """
    finished_job(session, job_id)
    document = selections.statistics(session, job_id)
    if document is None:
        raise StatisticsMissing(
            f"Job {job_id} was finished by a version that kept no statistics: submit it again, its gradients are kept."
        )
    return Statistics(job_id=job_id, **document)


def show(sessions: Sessions, job_id: uuid.UUID, *widths: tuple[float, float]) -> Shown:
    """The figures of a finished job and its result in words; raises as `statistics`.

    Args:
        sessions: The database.
        job_id: The job.
        widths: Of a figure and of the curve, in pixels, for each time that they are drawn.
    """
    with sessions() as session:
        found = statistics(session, job_id)
        job = to_response(finished_job(session, job_id))
        conflicts = results.conflicts(session, job_id)
    curve = results.stored_curve(sessions, job_id, CURVE_POINTS)
    figures = [draw_figures(curve, conflicts, found, job.selection.method, width, wide) for width, wide in widths]
    assert job.result is not None  # noqa: S101 - a job that has succeeded has one; tells mypy so
    return Shown(job, job.result, summary(job.result), figures)


def report(sessions: Sessions, files: JobFiles) -> str:
    """The report of a finished job, as HTML; raises as `statistics`, and as `rows_of` but where the rows are gone."""
    job_id = files.job_id
    shown = show(sessions, job_id, (REPORT_WIDTH, REPORT_WIDTH), (PHONE_WIDTH, PHONE_WIDTH))
    with sessions() as session:
        methods = league_of(session, job_id).methods
    try:
        rows = rows_of(files, excerpts_name(job_id), PickedRow, Asked("", REPORT_ROWS, None)).items
    except RowsGone:
        rows = None
    return render(Report(shown.job, shown.summary, shown.figures, methods, rows))
