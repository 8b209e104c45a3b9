"""Engine and sessions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from app.core.db import scoping

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.core.settings import Settings

GIVES_UP = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
"""On a server that acknowledges nothing: seconds, and milliseconds for the last one."""


LATE_S = 2.0
"""Seconds that an answer may come later than the server's own time limit."""


class Sessions(Protocol):
    """Makes sessions, each for one `with`."""

    def __call__(self, *, info: dict[Any, Any] = ...) -> Session:
        """A session; `info` is what `app.core.db.scoping` asks it for."""


class ConnectionInTime(psycopg.Connection[Any]):
    """A connection that is given up when Postgres does not answer in time.

    A frozen Postgres takes a statement and says nothing: neither TCP nor a time limit of the server notices that.
    """

    limit_s = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401 - psycopg's
        """Wait for an answer.

        Raises:
            OperationalError: None has come within `limit_s` seconds; the connection is closed.
        """
        began = time.monotonic()
        try:
            return super().wait(gen, interval, self.limit_s if timeout is None else timeout)
        except Exception as error:
            if timeout is not None or time.monotonic() - began < self.limit_s:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"Postgres has not answered within {self.limit_s:g} s") from error


def make_engine(settings: Settings, limit_s: float | None = None) -> Engine:
    """An engine whose connections are checked before use, so that a restarted Postgres costs no request.

    A host that vanishes without a word (a failover, a pulled cable) is given up after half a minute, where TCP by
    itself would have a worker's heartbeat wait for a quarter of an hour or more. The values of statements (URIs with
    signatures, webhooks' addresses) stay out of errors, and so out of logs.

    Args:
        settings: Where Postgres is, and how many connections there may be.
        limit_s: Seconds that a statement may take, and a few more that its answer may; None: as long as they like.
    """
    arguments: dict[str, Any] = {"connect_timeout": 5, "application_name": "spice", **GIVES_UP}
    options = [] if limit_s is None else [f"-c statement_timeout={round(1000 * limit_s)}"]
    if settings.lineage_url is not None:
        options.append("-c spice.lineage=on")  # has the triggers note what OpenLineage is to be told
    if options:
        arguments["options"] = " ".join(options)
    engine = create_engine(
        str(settings.database_url),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
        pool_timeout=30 if limit_s is None else limit_s / 2,
        connect_args=arguments,
    )
    if limit_s is not None:
        in_time = type("InTime", (ConnectionInTime,), {"limit_s": limit_s + LATE_S})

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, words: Any, named: Any) -> psycopg.Connection[Any]:  # noqa: ANN401
            return in_time.connect(*words, **named)  # type: ignore[no-any-return,attr-defined]

    return engine


def make_reading_sessions(engine: Engine) -> Sessions:
    """Sessions for reading, in autocommit: each statement is its own transaction.

    As READ COMMITTED has it, each statement sees what was committed before it; so nothing is lost, and neither a BEGIN
    nor a ROLLBACK goes over the wire.
    """
    return make_sessions(engine.execution_options(isolation_level="AUTOCOMMIT"))


def make_sessions(engine: Engine) -> Sessions:
    """A session factory. Objects stay readable after commit: they are turned into responses then."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    scoping.install(sessions)
    return sessions
