"""Checks of everything that the service needs; a failed check says what is wrong and what to do."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field
from redis.exceptions import ResponseError
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from app.core.contracts.schema import Response
from app.core.db.migrate import revisions
from app.core.lifecycle import counts, fleet
from app.core.queue import QueueUnavailable
from app.core.settings import QUEUES
from app.core.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.core.db.engine import Sessions
    from app.core.periodic import Periodic
    from app.core.queue import TaskQueue
    from app.core.storage import ArtifactStore

PATIENCE_S = 2.0
"""Seconds that `/readyz` waits for all checks together."""
STORE_EVERY_S = 15.0
"""Least seconds between two test writes."""
STORE_REMEDY = "see SPICE_ARTIFACTS_URL"
MIGRATE = "run `spice migrate`"
PROBES = ("readiness_probes", ())
"""The counter that a test write to Postgres adds to."""
POSTGRES_AWAY = (OperationalError, InterfaceError, NoConnectionFree)


class Check(Response):
    """The check of one requirement."""

    name: str
    ok: bool
    required: bool = Field(description="Whether the service can't serve without it; else this is a warning.")
    detail: str = Field(description="What was found.")
    remedy: str | None = Field(default=None, description="What to do about it.")


def _found(name: str, wrong: str | None, remedy: str, *, right: str = "answers", required: bool = True) -> Check:
    return Check(name=name, ok=wrong is None, required=required, detail=wrong or right, remedy=wrong and remedy)


def _database(sessions: Sessions) -> list[Check]:
    """Whether Postgres has the schema, and takes a write: a standby and a full disk only answer."""
    try:
        with sessions() as session:
            session.execute(text(f"SET LOCAL statement_timeout = {round(1000 * PATIENCE_S)}"))
            present, wanted = revisions(session.connection())
            if present == wanted:
                counts.add(session, {PROBES: 1.0})
            session.commit()
    except POSTGRES_AWAY:
        return _postgres_away("Postgres does not answer", "see SPICE_DATABASE_URL")
    except SQLAlchemyError:
        return _postgres_away("Postgres does not take writes", "see its log: is it a standby, or its disk full?")
    stale = None if present == wanted else f"the schema is at {present or 'nothing'}, not at {wanted}"
    return [
        _found("postgres", None, ""),
        _found("migrations", stale, MIGRATE, right=f"the schema is at {wanted}"),
    ]


def _postgres_away(what: str, remedy: str) -> list[Check]:
    return [
        _found("postgres", what, remedy),
        _found("migrations", "the schema is unknown while Postgres is away", "see the check of postgres"),
    ]


def _redis(queue: TaskQueue) -> list[Check]:
    try:
        queue.try_write()
    except QueueUnavailable as error:
        answers = isinstance(error, ResponseError)
        wrong = "Redis does not take writes" if answers else "Redis does not answer"
        return [_found("redis", wrong, "see its log and its memory" if answers else "see SPICE_REDIS_URL")]
    return [_found("redis", None, "", right="takes writes")]


def _artifacts(artifacts: ArtifactStore, name: str) -> list[Check]:
    try:
        artifacts.write(name, b"ready")
        artifacts.remove(name)
    except StorageFailed:
        return [_found("artifacts", "the artifact store does not take writes", STORE_REMEDY)]
    return [_found("artifacts", None, "", right="takes writes")]


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
            return _worker_checks(fleet.alive(session))
    except SQLAlchemyError:
        return _worker_checks({})


def _worker_checks(alive: Mapping[str, int]) -> list[Check]:
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


class Probe:
    """A check of a server that may not answer: on one thread of its own; callers wait for a limited time."""

    def __init__(self, look: Callable[[], list[Check]], silent: list[Check], every_s: float = 0.0) -> None:
        """Describe the check; nothing is checked yet.

        Args:
            look: Does the check.
            silent: The result while the check has not ended in time.
            every_s: Seconds for which a result is given again.
        """
        self._look = look
        self._silent = silent
        self._every_s = every_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._lock = threading.Lock()
        self._looked: Future[list[Check]] | None = None
        self._looked_at = 0.0

    def begin(self) -> Future[list[Check]]:
        """Start a check, unless one is under way or the last result is still new enough."""
        with self._lock:
            stale = time.monotonic() - self._looked_at >= self._every_s
            if self._looked is None or (stale and self._looked.done()):
                self._looked, self._looked_at = self._pool.submit(self._look), time.monotonic()
            return self._looked

    def found(self, looked: Future[list[Check]], until: float) -> list[Check]:
        """The result of a check that `begin` gave, if it has ended by `until` on the monotonic clock."""
        try:
            return looked.result(max(until - time.monotonic(), 0))
        except FutureTimeoutError:
            return self._silent

    def close(self) -> None:
        """Start no more checks."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Probes:
    """All checks, in the order in which a service is set up."""

    def __init__(
        self, sessions: Sessions, queue: TaskQueue, artifacts: ArtifactStore, loops: Sequence[Periodic] = ()
    ) -> None:
        name = f"probes/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._loops = loops
        slow = f"within {PATIENCE_S:.0f} s"
        self._probes = [
            Probe(
                partial(_database, sessions),
                _postgres_away(f"Postgres did not take a write {slow}", "see SPICE_DATABASE_URL"),
            ),
            Probe(
                partial(_redis, queue),
                [_found("redis", f"Redis did not take a write {slow}", "see SPICE_REDIS_URL")],
            ),
            Probe(
                partial(_artifacts, artifacts, name),
                [_found("artifacts", f"the artifact store did not take a write {slow}", STORE_REMEDY)],
                STORE_EVERY_S,
            ),
            Probe(partial(_workers, sessions), _worker_checks({})),
        ]

    def checks(self) -> list[Check]:
        """The results, within `PATIENCE_S` and little more, also while a server does not answer."""
        begun = [(probe, probe.begin()) for probe in self._probes]
        until = time.monotonic() + PATIENCE_S
        *servers, workers = (probe.found(looked, until) for probe, looked in begun)
        return [*(check for found in servers for check in found), *map(_loop, self._loops), *workers]

    def close(self) -> None:
        """Start no more checks."""
        for probe in self._probes:
            probe.close()
