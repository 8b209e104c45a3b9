"""Quotas of projects: limits, present use, and whether more fits.

A request that uses more locks the project's row, counts, and adds its use in the same transaction. Of two requests at
the same time the second waits and counts the use of the first. A project without limits is not locked.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Select, bindparam, delete, exists, func, select, union_all, update
from sqlalchemy.dialects.postgresql import insert

from app.core.db.tables import Dataset, DeletedJob, Estimate, Job, Preview, Project, Proof
from app.core.lifecycle.leases import OPEN
from app.core.lifecycle.sketch_use import lock_number

if TYPE_CHECKING:
    import uuid
    from datetime import datetime

    from sqlalchemy.orm import Session

    from app.core.settings import Settings

DAY = timedelta(days=1)
ASK = "ask the service's operator for more (`spice projects limit`)"
_OWN_LIMITS = select(
    Project.open_jobs, Project.open_readings, Project.rows_per_job, Project.rows_per_day, Project.upload_bytes
).where(Project.id == bindparam("project_id"))
"""Made once: every submission asks, and making it takes as long as its answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a project may use; None is as much as it likes.

    Attributes:
        open_jobs: Jobs and proofs that have not ended; a proof counts once, with the job that was made for it.
        open_readings: Datasets, previews and estimates that workers have not read to their end.
        rows_per_job: Rows of one job's dataset.
        rows_per_day: Rows of all jobs that were submitted in the last 24 hours, of deleted ones too.
        upload_bytes: Bytes of its uploaded files.
    """

    open_jobs: int | None
    open_readings: int | None
    rows_per_job: int | None
    rows_per_day: int | None
    upload_bytes: int | None

    @property
    def of_jobs(self) -> bool:
        """Whether anything of its jobs is limited."""
        return (self.open_jobs, self.rows_per_job, self.rows_per_day) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Excess:
    """What does not fit.

    Attributes:
        limit: Name of the limit.
        message: The value, the limit and the remedy.
        passes: Whether it will fit by itself, later.
    """

    limit: str
    message: str
    passes: bool


def limits_of(session: Session, project_id: uuid.UUID, settings: Settings) -> Limits:
    """A project's own limits, and those of the settings where it has none."""
    own = session.connection().execute(_OWN_LIMITS, {"project_id": project_id}).one()
    defaults = astuple(_defaults(settings))
    return Limits(*(default if value is None else value for value, default in zip(own, defaults, strict=True)))


def _defaults(settings: Settings) -> Limits:
    return Limits(
        settings.quota_open_jobs,
        settings.quota_open_readings,
        settings.quota_rows_per_job,
        settings.quota_rows_per_day,
        settings.quota_upload_bytes,
    )


def excess_of_submission(
    session: Session, project_id: uuid.UUID, settings: Settings, rows: int | None
) -> Excess | None:
    """What keeps one more job from being submitted; the caller adds it in this transaction.

    Args:
        session: Holds the project's lock until it ends, if the project has limits.
        project_id: Whose it is.
        settings: The limits of projects that have none of their own.
        rows: Rows of its dataset, if they are known.
    """
    limits = limits_of(session, project_id, settings)
    if not limits.of_jobs:
        return None
    _lock(session, project_id)
    return _excess_of_open_work(session, project_id, limits) or _excess_of_rows(
        session, project_id, limits, rows or 0, besides=None
    )


def excess_of_proof(session: Session, project_id: uuid.UUID, settings: Settings) -> Excess | None:
    """What keeps one more proof of a job from being submitted; the caller adds it in this transaction."""
    limits = limits_of(session, project_id, settings)
    if limits.open_jobs is None:
        return None
    _lock(session, project_id)
    return _excess_of_open_work(session, project_id, limits)


def _excess_of_open_work(session: Session, project_id: uuid.UUID, limits: Limits) -> Excess | None:
    if limits.open_jobs is None:
        return None
    made_for_open_proof = exists().where(Proof.job_id == Job.id, Proof.own_job, Proof.state.in_(OPEN))
    jobs = select(func.count()).where(Job.project_id == project_id, Job.state.in_(OPEN), ~made_for_open_proof)
    proofs = select(func.count()).where(Proof.project_id == project_id, Proof.state.in_(OPEN))
    in_use = (session.scalar(jobs) or 0) + (session.scalar(proofs) or 0)
    if in_use < limits.open_jobs:
        return None
    message = (
        f"{in_use} jobs and proofs of the project have not ended, and {limits.open_jobs} may at once: wait for one, or "
    )
    return Excess("open_jobs", f"{message}{ASK}", passes=True)


def excess_of_reading(session: Session, project_id: uuid.UUID, settings: Settings) -> Excess | None:
    """What keeps one more dataset, preview or estimate from being read; the caller adds it in this transaction."""
    limit = limits_of(session, project_id, settings).open_readings
    if limit is None:
        return None
    _lock(session, project_id)
    in_use = sum(
        session.scalar(select(func.count()).where(table.project_id == project_id, table.state.in_(OPEN))) or 0
        for table in (Dataset, Estimate, Preview)
    )
    if in_use < limit:
        return None
    message = f"{in_use} datasets, previews and estimates of the project are not read yet, and {limit} may at once"
    return Excess("open_readings", f"{message}: wait for one, or {ASK}", passes=True)


def excess_of_upload(
    session: Session, project_id: uuid.UUID, settings: Settings, used: int, size: int
) -> Excess | None:
    """What keeps one more file from being uploaded.

    Args:
        session: Holds the lock of `lock_uploads`, where the file is kept in this transaction.
        project_id: Whose it is.
        settings: The limits of projects that have none of their own.
        used: Bytes of the project's other uploaded files.
        size: Bytes of the file.
    """
    limit = limits_of(session, project_id, settings).upload_bytes
    if limit is None or used + size <= limit:
        return None
    message = (
        f"has {size} bytes, the project's other uploaded files {used}, and {limit} is what they may have together: "
        f"delete some (GET /files, DELETE /files/ID), or {ASK}"
    )
    return Excess("upload_bytes", message, passes=False)


def lock_uploads(session: Session, project_id: uuid.UUID) -> None:
    """Have other uploads of the project wait until the transaction ends, and nothing else of it."""
    session.execute(select(func.pg_advisory_xact_lock(lock_number(project_id.hex))))


def count_rows(session: Session, job_id: uuid.UUID, rows: int, settings: Settings) -> Excess | None:
    """Note how many rows a job has, now that they were counted, and commit; what does not fit is noted as well."""
    job = session.get_one(Job, job_id)
    if job.rows == rows:
        session.rollback()
        return None
    limits = limits_of(session, job.project_id, settings)
    if limits.of_jobs:
        _lock(session, job.project_id)
    excess = _excess_of_rows(session, job.project_id, limits, rows, besides=job_id)
    session.execute(update(Job).where(Job.id == job_id).values(rows=0 if excess else rows))
    session.commit()
    return excess


def excess_of_rows(session: Session, project_id: uuid.UUID, settings: Settings, rows: int) -> Excess | None:
    """What would keep a job with so many rows from running now; nothing is noted, and nobody waits."""
    return _excess_of_rows(session, project_id, limits_of(session, project_id, settings), rows, besides=None)


def _excess_of_rows(
    session: Session, project_id: uuid.UUID, limits: Limits, rows: int, besides: uuid.UUID | None
) -> Excess | None:
    if limits.rows_per_job is not None and rows > limits.rows_per_job:
        message = f"has {rows} rows, and a job of the project may have {limits.rows_per_job}: send fewer, or {ASK}"
        return Excess("rows_per_job", message, passes=False)
    if limits.rows_per_day is not None:
        used = int(session.scalar(_rows_of_a_day(project_id, besides)) or 0)
        if used + rows > limits.rows_per_day or (rows == 0 and used >= limits.rows_per_day):
            message = (
                f"has {rows} rows, the project's jobs of the last 24 hours {used}, and {limits.rows_per_day} is what "
                f"they may have together: wait, or {ASK}"
            )
            return Excess("rows_per_day", message, passes=rows <= limits.rows_per_day)
    return None


def keep_deleted(
    session: Session, job_id: uuid.UUID, project_id: uuid.UUID, created_at: datetime, rows: int | None
) -> None:
    """Note in the caller's transaction what a job has used that goes in it."""
    if rows:
        session.execute(insert(DeletedJob).values(id=job_id, project_id=project_id, created_at=created_at, rows=rows))


def forget_deleted(session: Session) -> None:
    """Forget the deleted jobs that count no longer, of all projects, and commit."""
    session.execute(delete(DeletedJob).where(DeletedJob.created_at < func.now() - DAY))
    session.commit()


def _rows_of_a_day(project_id: uuid.UUID, besides: uuid.UUID | None) -> Select[int]:
    """Rows of the project's jobs of the last 24 hours; one statement, so that no job is seen twice or not at all."""
    parts = [
        select(table.rows).where(table.project_id == project_id, table.created_at > func.now() - DAY)
        for table in (Job, DeletedJob)
    ]
    if besides is not None:
        parts[0] = parts[0].where(Job.id != besides)
    rows = union_all(*parts).subquery()
    return select(func.coalesce(func.sum(rows.c.rows), 0))


def _lock(session: Session, project_id: uuid.UUID) -> None:
    """Have others of the project wait; not those that only refer to it."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
