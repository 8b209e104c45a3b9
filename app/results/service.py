"""Read what a job published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.db import selections
from app.core.db.selections import FILTERED, MAIN
from app.core.db.tables import State
from app.http.media_types import most_accepted
from app.http.problems import NotAcceptable, ResultNotReady
from app.jobs.service import find_job
from app.results.formats import FORMATS
from app.results.schemas import (
    Conflicts,
    ConflictStatistics,
    Curve,
    CurveLine,
    RejectedList,
    RejectedReason,
)

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.db.tables import Job, Json
    from app.results.formats import SubsetFormat

WHY_NOT_READY = {
    State.QUEUED: "is queued: poll it until its state is succeeded",
    State.RUNNING: "is running: poll it until its state is succeeded",
    State.FAILED: "has failed and has no subset: its `error` says why",
    State.CANCELLED: "was cancelled and has no subset: submit it again",
}


def finished_job(session: Session, job_id: uuid.UUID) -> Job:
    """A job that has a result.

    Raises:
        JobNotFound: There is no such job.
        ResultNotReady: The job has not succeeded.
    """
    job = find_job(session, job_id)
    if job.state is not State.SUCCEEDED:
        raise ResultNotReady(f"Job {job_id} {WHY_NOT_READY[job.state]}.")
    return job


def choose_format(name: str | None, accept: str | None) -> SubsetFormat:
    """The format that the client names, or else prefers by `Accept`; JSON if `Accept` allows every format.

    Raises:
        NotAcceptable: The client accepts none of the formats.
    """
    if name is not None:
        return next(known for known in FORMATS if known.name == name)
    offered = {known.media_type: known for known in FORMATS}
    media_type = most_accepted(accept, tuple(offered))
    if media_type is None:
        raise NotAcceptable(f"Accept is {accept!r}, but a subset comes as {', '.join(offered)}; or say ?format=.")
    return offered[media_type]


def curve(sessions: Sessions, job_id: uuid.UUID, points: int) -> Curve:
    """The log-det curves of a finished job, each thinned to at most `points` points."""
    with sessions() as session:
        finished_job(session, job_id)
        heads = selections.heads(session, job_id)
    lines = {
        head.label: _stored_line(head.curve, head.selected, points)
        if head.curve and head.curve["runs"] > 1
        else _curve_line(sessions, job_id, head.label, head.selected, points)
        for head in heads
    }
    return _curve(job_id, lines)


def stored_curve(sessions: Sessions, job_id: uuid.UUID, points: int) -> Curve:
    """Curves from the ranks that the job stored for figures, six digits each; the time does not grow with the picks."""
    with sessions() as session:
        finished_job(session, job_id)
        heads = selections.heads(session, job_id)
    if not all(head.curve for head in heads):  # the job was finished before curves were stored apart
        return curve(sessions, job_id, points)
    return _curve(job_id, {head.label: _stored_line(head.curve or {}, head.selected, points) for head in heads})


def conflicts(session: Session, job_id: uuid.UUID) -> Conflicts:
    """The conflict statistics of a finished job."""
    finished_job(session, job_id)
    statistics = {
        head.label: ConflictStatistics.model_validate(head.conflicts) for head in selections.heads(session, job_id)
    }
    main = statistics.pop(MAIN)
    return Conflicts(job_id=job_id, **main.model_dump(), baselines=statistics)


def rejected(session: Session, job_id: uuid.UUID) -> RejectedList:
    """All rows of a finished job that could not be used or were filtered."""
    finished_job(session, job_id)
    found = selections.rejected(session, job_id)
    filtered = [row for row in found if row.reason.startswith(FILTERED)]
    return RejectedList(
        job_id=job_id,
        rejected=[RejectedReason(reason=row.reason, rows=row.row_indices) for row in found if row not in filtered],
        filtered=[RejectedReason(reason=row.reason.removeprefix(FILTERED), rows=row.row_indices) for row in filtered],
    )


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced ranks from 1 to `count`, the last rank included."""
    points = min(most, count)
    return sorted({-(-count * number // points) for number in range(1, points + 1)})


def _curve(job_id: uuid.UUID, lines: dict[str, CurveLine]) -> Curve:
    main = lines.pop(MAIN)
    return Curve(job_id=job_id, **main.model_dump(), baselines=lines)


def _stored_line(stored: Json, selected: int, points: int) -> CurveLine:
    kept = [rank - 1 for rank in _evenly(len(stored["rank"]), points)]
    fields = (name for name in ("rank", "log_det", "log_det_std", "marginal_gains") if stored[name] is not None)
    return CurveLine(
        selected=selected, runs=stored["runs"], **{name: [stored[name][at] for at in kept] for name in fields}
    )


def _curve_line(sessions: Sessions, job_id: uuid.UUID, label: str, selected: int, points: int) -> CurveLine:
    wanted = _evenly(selected, points)
    line = CurveLine(selected=selected, rank=wanted, log_det=[], marginal_gains=[])
    for column, values in (("log_det", line.log_det), ("marginal_gains", line.marginal_gains)):
        remaining = iter(wanted)
        rank, seen = next(remaining, 0), 0
        for chunk in selections.stream_column(sessions, job_id, column, label):
            while rank and rank <= seen + len(chunk):
                values.append(chunk[rank - seen - 1])
                rank = next(remaining, 0)
            seen += len(chunk)
    return line
