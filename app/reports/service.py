"""Read what a job's figures are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db import selections
from app.problems import StatisticsMissing
from app.reports.schemas import Statistics
from app.results.service import finished_job

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session


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
