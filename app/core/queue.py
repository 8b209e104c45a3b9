"""The queue. In the service, only this module uses RQ.

A message wakes a worker; Postgres decides which row the worker takes (`app.core.lifecycle.turns`). There is a message
for each dispatch of a row, so that there are as many as there is work; a message of a row that has ended wakes a worker
for whatever else waits, and costs nothing. The worker's function is named, not imported: the service does not need what
a GPU machine has installed.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from app.core.lifecycle.leases import SERVED
from app.core.settings import QUEUES

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from app.core.lifecycle.leases import Waiting, Work
    from app.core.settings import Settings

logger = logging.getLogger(__name__)

TASK: Final = "workers.stages.turns.take_turns"
"""The one function that a message may name."""
KINDS: Final[dict[Work, str]] = {table: kind for kind, tables in SERVED.items() for table in tables}
"""The queue of each table's rows."""
QueueUnavailable = RedisError

AT_ONCE: Final = 1000
"""Messages of one pipeline, which bounds the memory for it to some MB."""
MESSAGE_TTL_S: Final = 7 * 86400
"""Of a message that waits. A worker that ends between taking one and beginning with it leaves it in no list, where
nobody finds it to delete it. A row that waits for longer gets another message from the reconciler."""


class TaskQueue:
    """Hands rows to workers."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis.from_url(
            str(settings.redis_url), socket_connect_timeout=2, socket_timeout=5, health_check_interval=30
        )
        self._queues = {
            kind: Queue(queue_name(settings, kind), connection=self._redis, serializer=JSONSerializer)
            for kind in QUEUES
        }
        self._probe = f"{settings.queue_name}-probe"

    def put(self, rows: Sequence[Waiting]) -> None:
        """Enqueue a message for each row's dispatch, in one round trip for up to 1,000 rows.

        Every dispatch is put once: who queues a row again gives it the next dispatch, and a message of an earlier
        one claims nothing.

        Raises:
            QueueUnavailable: Redis does not answer. Rows without a message stay queued in Postgres, and the reconciler
                puts them.
        """
        for first in range(0, len(rows), AT_ONCE):
            self._put(rows[first : first + AT_ONCE])

    def _put(self, rows: Sequence[Waiting]) -> None:
        with self._redis.pipeline() as pipeline:
            for kind, queue in self._queues.items():
                messages = [Queue.prepare_data(**_message(row)) for row in rows if KINDS[row.table] == kind]
                if messages:
                    queue.enqueue_many(messages, pipeline=pipeline)
            pipeline.execute()

    def put_or_leave(self, rows: Sequence[Waiting]) -> None:
        """Enqueue committed rows; if Redis does not answer, leave them to the reconciler."""
        try:
            self.put(rows)
        except QueueUnavailable:
            logger.warning("Redis does not answer: %d rows wait in Postgres", len(rows))

    def drop(self, work: Waiting) -> None:
        """Delete the message of a dispatch that is over: a worker that was killed with it left it behind.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with contextlib.suppress(NoSuchJobError):
            RqJob.fetch(_message_id(work.id, work.dispatch), self._redis, JSONSerializer).delete()

    def missing(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """Those of `waiting` that no message in the queue stands for; each queue's list is read once.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        if not waiting:
            return []
        kinds = {KINDS[work.table] for work in waiting}
        present = {message for kind in kinds for message in self._queues[kind].job_ids}
        return [work for work in waiting if _message_id(work.id, work.dispatch) not in present]

    def lengths(self) -> dict[str, int]:
        """Messages in each queue, by its kind.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return {kind: queue.count for kind, queue in self._queues.items()}

    def try_write(self) -> None:
        """Raise QueueUnavailable if Redis does not answer, or takes no writes."""
        self._redis.set(self._probe, b"ready", ex=60)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def queue_name(settings: Settings, kind: str) -> str:
    """RQ's name of the queue of jobs (`selection`), of shards and estimates (`gradients`), or of runs (`proofs`)."""
    return f"{settings.queue_name}-{kind}"


def _message(work: Waiting) -> dict[str, Any]:
    """What RQ is told of a row's dispatch, by the names of `Queue.prepare_data`."""
    return {
        "func": TASK,
        "job_id": _message_id(work.id, work.dispatch),
        "timeout": -1,  # a job's length is its own affair, and Postgres keeps what came of it
        "ttl": MESSAGE_TTL_S,
        "result_ttl": 0,
        "failure_ttl": 3600,
    }


def _message_id(row_id: uuid.UUID, dispatch: int) -> str:
    return f"{row_id}-{dispatch}"
