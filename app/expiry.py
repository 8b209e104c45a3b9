"""Delete what has expired: jobs with their results, rows and events, datasets, answers kept for repeated requests.

This runs in every API process; each deletion holds its row, so any number at once is harmless.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.artifacts import rows_prefix
from app.db import idempotency, quotas
from app.db.deletion import delete_expired_datasets, expired_job

if TYPE_CHECKING:
    from app.artifacts import ArtifactStore
    from app.db.engine import Sessions
    from app.settings import Settings

logger = logging.getLogger(__name__)


def expire(sessions: Sessions, artifacts: ArtifactStore, settings: Settings) -> int:
    """Delete all whose time is over; the number of jobs.

    Raises:
        StorageFailed: The store does not answer; the job in question stays.
        SQLAlchemyError: Postgres does not answer.
    """
    count = 0
    while True:
        with expired_job(sessions) as job_id:
            if job_id is not None:
                artifacts.remove_all(rows_prefix(job_id))
        if job_id is None:
            break
        logger.info("job %s has expired and is deleted", job_id)
        count += 1
    with sessions() as session:
        delete_expired_datasets(session)
        idempotency.forget(session, settings.idempotency_max_age_s)
        quotas.forget_deleted(session)
    return count
