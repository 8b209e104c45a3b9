"""Delete what has expired: jobs and proofs with all that is theirs, datasets, estimates, answers of repeated requests.

Every API process runs this. A deletion locks its row, so any number of processes may delete at the same time.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from app.core.db.tables import Job, Proof
from app.core.lifecycle import measurements, proofs, quotas
from app.core.lifecycle.deletion import delete_expired_datasets, delete_old_estimates, expired
from app.core.storage import StorageFailed, rows_prefix
from app.http import idempotency

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore

logger = logging.getLogger(__name__)


def expire(sessions: Sessions, artifacts: ArtifactStore, settings: Settings) -> int:
    """Delete everything that has expired. A job or proof whose files can't be deleted stays, and delays no other.

    Returns:
        Number of jobs and proofs that were deleted.

    Raises:
        SQLAlchemyError: Postgres does not answer.
    """
    with sessions() as session:
        delete_expired_datasets(session)
        delete_old_estimates(session)
        measurements.forget(session)
        idempotency.forget(session, settings.idempotency_max_age_s)
        quotas.forget_deleted(session)
    return sum(_expire(sessions, artifacts, table) for table in (Proof, Job))


def _expire(sessions: Sessions, artifacts: ArtifactStore, table: type[Job | Proof]) -> int:
    what, count, stuck = table.__name__.lower(), 0, set[uuid.UUID]()
    while True:
        row_id = None
        try:
            with expired(sessions, table, but=stuck) as row_id:
                if row_id is None:
                    return count
                for prefix in _prefixes(sessions, table, row_id):
                    artifacts.remove_all(prefix)
        except StorageFailed as error:
            assert row_id is not None  # noqa: S101 - the store was asked for a row's files
            stuck.add(row_id)
            logger.warning("%s %s has expired, and is deleted once its files can be: %s", what, row_id, error)
        else:
            logger.info("%s %s has expired and is deleted", what, row_id)
            count += 1


def _prefixes(sessions: Sessions, table: type[Job | Proof], row_id: uuid.UUID) -> list[str]:
    if table is Job:
        return [rows_prefix(row_id)]
    with sessions() as session:
        return proofs.prefixes_of(session, row_id)
