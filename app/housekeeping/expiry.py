"""Delete what has expired: jobs with their results, rows and events, datasets, answers kept for repeated requests.

Every API process runs this. A deletion locks its row, so any number of processes may delete at the same time.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from app.core.lifecycle import quotas
from app.core.lifecycle.deletion import delete_expired_datasets, expired_job
from app.core.storage import StorageFailed, rows_prefix
from app.http import idempotency

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore

logger = logging.getLogger(__name__)


def expire(sessions: Sessions, artifacts: ArtifactStore, settings: Settings) -> int:
    """Delete everything that has expired. A job whose rows can't be deleted stays, and delays no other job.

    Returns:
        Number of jobs that were deleted.

    Raises:
        SQLAlchemyError: Postgres does not answer.
    """
    with sessions() as session:
        delete_expired_datasets(session)
        idempotency.forget(session, settings.idempotency_max_age_s)
        quotas.forget_deleted(session)
    count, stuck = 0, set[uuid.UUID]()
    while True:
        job_id = None
        try:
            with expired_job(sessions, but=stuck) as job_id:
                if job_id is None:
                    return count
                artifacts.remove_all(rows_prefix(job_id))
        except StorageFailed as error:
            assert job_id is not None  # noqa: S101 - the store was asked for a job's rows
            stuck.add(job_id)
            logger.warning("job %s has expired, and is deleted once its rows can be: %s", job_id, error)
        else:
            logger.info("job %s has expired and is deleted", job_id)
            count += 1
