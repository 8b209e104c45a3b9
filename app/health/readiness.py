"""Checks of everything that the service needs; a failed check says what is wrong and what to do."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING

from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError

from app.core.contracts.schema import Response
from app.core.db.migrate import revisions
from app.core.lifecycle import fleet
from app.core.queue import QueueUnavailable
from app.core.settings import QUEUES
from app.core.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.db.engine import Sessions
    from app.core.periodic import Periodic
    from app.core.queue import TaskQueue
    from app.core.storage import ArtifactStore

STORE_PATIENCE_S = 2.0
STORE_EVERY_S = 15.0
"""Least seconds between two test writes."""


class Check(Response):
    """The check of one requirement."""

    name: str
    ok: bool
    required: bool = Field(description="Whether the service can't serve without it; else this is a warning.")
    detail: str = Field(description="What was found.")
    remedy: str | None = Field(default=None, description="What to do about it.")


def checks(sessions: Sessions, queue: TaskQueue, store: StoreProbe, loops: Sequence[Periodic] = ()) -> list[Check]:
    """All checks, in the order in which a service is set up."""
    return [*_database(sessions), _redis(queue), store.check(), *map(_loop, loops), *_workers(sessions)]


def _found(name: str, wrong: str | None, remedy: str, *, right: str = "answers", required: bool = True) -> Check:
    return Check(name=name, ok=wrong is None, required=required, detail=wrong or right, remedy=wrong and remedy)


def _database(sessions: Sessions) -> list[Check]:
    migrate = "run `spice migrate`"
    try:
        with sessions() as session:
            present, wanted = revisions(session.connection())
    except SQLAlchemyError:
        return [
            _found("postgres", "Postgres does not answer", "see SPICE_DATABASE_URL"),
            _found("migrations", "unknown while Postgres is away", migrate),
        ]
    stale = None if present == wanted else f"the schema is at {present or 'nothing'}, not at {wanted}"
    return [_found("postgres", None, ""), _found("migrations", stale, migrate, right=f"the schema is at {wanted}")]


def _redis(queue: TaskQueue) -> Check:
    try:
        queue.ping()
    except QueueUnavailable:
        return _found("redis", "Redis does not answer", "see SPICE_REDIS_URL")
    return _found("redis", None, "")


def _loop(loop: Periodic) -> Check:
    """Whether a periodic loop of this process runs; other API processes do the work of a loop that stands still."""
    return _found(
        loop.name,
        None if (why := loop.standstill()) is None else f"{loop.name} {why}",
        "see this process's log, and start it again",
        right="turns",
        required=False,
    )


def _workers(sessions: Sessions) -> list[Check]:
    """Whether each queue has a worker: without workers the service accepts jobs, and the jobs wait."""
    try:
        with sessions() as session:
            alive = fleet.alive(session)
    except SQLAlchemyError:
        alive = {}
    return [
        _found(
            f"worker {queue}",
            None if alive.get(queue) else f"no worker that serves {queue} was seen in the last {fleet.ALIVE_S:.0f} s",
            f"start one: SPICE_WORKER_QUEUES={queue} spice worker",
            right=f"{alive.get(queue)} alive",
            required=False,
        )
        for queue in QUEUES
    ]


class StoreProbe:
    """Whether the artifact store can be written: a test write on a thread, repeated after `STORE_EVERY_S`."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._name = f"probes/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store-probe")
        self._lock = threading.Lock()
        self._tried: Future[str | None] | None = None
        self._tried_at = 0.0

    def check(self) -> Check:
        """The result of the last test write; a new one if the last is old."""
        with self._lock:
            stale = time.monotonic() - self._tried_at > STORE_EVERY_S
            if self._tried is None or (stale and self._tried.done()):
                self._tried, self._tried_at = self._pool.submit(self._try), time.monotonic()
            tried = self._tried
        try:
            wrong = tried.result(STORE_PATIENCE_S)
        except FutureTimeoutError:
            wrong = f"the artifact store did not take a write within {STORE_PATIENCE_S:.0f} s"
        return _found("artifacts", wrong, "see SPICE_ARTIFACTS_URL", right="takes writes")

    def close(self) -> None:
        """End the test writes."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _try(self) -> str | None:
        try:
            self._artifacts.write(self._name, b"ready")
            self._artifacts.remove(self._name)
        except StorageFailed:
            return "the artifact store does not take writes"
        return None
