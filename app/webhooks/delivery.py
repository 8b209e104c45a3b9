"""Deliver what is due. A message stays in its job's row until it is delivered or given up.

The row says that a message is due since the transaction in which its job ended (a trigger does that), so none is lost
and none is sent for what did not happen. Any number of API processes deliver; each takes a message for some seconds.
What is sent by one that dies is sent again, with the same `webhook-id`.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from app.webhooks import repository
from app.webhooks.sending import send
from app.webhooks.signing import secrets_in_use, signed_headers

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.webhooks.repository import Due

logger = logging.getLogger(__name__)

AT_ONCE = 16


def deliver(sessions: Sessions, settings: Settings) -> int:
    """Deliver all that is due now; the number of messages that were tried.

    Raises:
        SQLAlchemyError: Postgres does not answer.
    """
    tried = 0
    while True:
        with sessions() as session:
            due = repository.take_due(session, AT_ONCE, hold_s=3 * settings.webhook_timeout_s)
        if not due:
            return tried
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(partial(_deliver, sessions, settings), due))
        tried += len(due)


def _deliver(sessions: Sessions, settings: Settings, due: Due) -> None:
    body = json.dumps({"type": f"job.{due.state}", "timestamp": due.at.isoformat(), "data": due.data})
    secrets = secrets_in_use(settings, due.project_id, due.rotations)
    try:
        status, wrong = send(due.url, body, signed_headers(secrets, f"msg_{due.job_id.hex}", body), settings)
    except Exception as error:  # or it would be due for ever
        logger.exception("webhook of job %s could not be sent", due.job_id)
        status, wrong = None, type(error).__name__
    with sessions() as session:
        if wrong is None:
            repository.delivered(session, due, status)
        else:
            logger.warning("webhook of job %s, attempt %d: %s", due.job_id, due.attempt, wrong)
            last = due.attempt >= settings.webhook_attempts
            again_s = None if last else min(settings.webhook_backoff_s * 2 ** (due.attempt - 1), 3600.0)
            repository.failed(session, due, status, wrong, again_s)
