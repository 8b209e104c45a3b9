"""Deliver due webhook messages. A message stays in its job's row until it is delivered or given up.

A trigger makes the message due in the transaction that ends the job, so no message is lost and none is sent for a job
that has not ended. Any number of API processes deliver; each takes a message for some seconds. If a process dies while
it sends a message, another process sends it again with the same `webhook-id`.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from app.webhooks import repository
from app.webhooks.sending import send
from app.webhooks.signing import secrets_in_use, signed_headers

if TYPE_CHECKING:
    import uuid

    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.webhooks.repository import Due

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
LANE: Final = 4
"""Most attempts of one project at a time, so that its slow receivers leave places to other projects."""
TURN_S: Final = 20.0
LOOK_S: Final = 0.5
"""Seconds between two queries for due messages while no receiver answers."""


class Delivery:
    """Sends the messages of one API process; for one thread."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._under_way: dict[Future[None], uuid.UUID] = {}

    def turn(self) -> int:
        """Send due messages for up to `TURN_S` seconds; slow answers are awaited during later turns.

        Returns:
            Number of messages whose sending began.

        Raises:
            SQLAlchemyError: Postgres does not answer.
        """
        until = time.monotonic() + TURN_S
        tried = 0
        while begun := self._begin():
            tried += begun
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            wait(self._under_way, min(left_s, LOOK_S), FIRST_COMPLETED)
        return tried

    def finish(self) -> None:
        """Wait until every attempt that is under way has ended."""
        wait(self._under_way)
        self._pool.shutdown()

    def close(self) -> None:
        """Begin no more attempts. An attempt that is under way ends by itself, or another process repeats it."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> int:
        """Take due messages for all free places."""
        self._under_way = {future: project for future, project in self._under_way.items() if not future.done()}
        lanes = Counter(self._under_way.values())
        with self._sessions() as session:
            due = repository.take_due(
                session,
                AT_ONCE - lanes.total(),
                hold_s=3 * self._settings.webhook_timeout_s,
                lane=LANE,
                under_way=lanes,
            )
        for one in due:
            future = self._pool.submit(_deliver, self._sessions, self._settings, one)
            self._under_way[future] = one.project_id
        return len(due)


def _deliver(sessions: Sessions, settings: Settings, due: Due) -> None:
    body = json.dumps({"type": f"{due.kind}.{due.state}", "timestamp": due.at.isoformat(), "data": due.data})
    secrets = secrets_in_use(settings, due.project_id, due.rotations)
    try:
        status, wrong = send(due.url, body, signed_headers(secrets, f"msg_{due.id.hex}", body), settings)
    except Exception as error:  # or the message would be due for ever
        logger.exception("webhook of %s %s could not be sent", due.kind, due.id)
        status, wrong = None, type(error).__name__
    with sessions() as session:
        if wrong is None:
            repository.delivered(session, due, status)
        else:
            logger.warning("webhook of %s %s, attempt %d: %s", due.kind, due.id, due.attempt, wrong)
            last = due.attempt >= settings.webhook_attempts
            again_s = None if last else min(settings.webhook_backoff_s * 2 ** (due.attempt - 1), 3600.0)
            repository.failed(session, due, status, wrong, again_s)
