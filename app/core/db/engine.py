"""Engine and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.db import scoping

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.core.settings import Settings

GIVES_UP = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
"""On a server that acknowledges nothing: seconds, and milliseconds for the last one."""


class Sessions(Protocol):
    """Makes sessions, each for one `with`."""

    def __call__(self, *, info: dict[Any, Any] = ...) -> Session:
        """A session; `info` is what `app.core.db.scoping` asks it for."""


def make_engine(settings: Settings) -> Engine:
    """An engine whose connections are checked before use, so that a restarted Postgres costs no request.

    A host that vanishes without a word (a failover, a pulled cable) is given up after half a minute, where TCP by
    itself would have a worker's heartbeat wait for a quarter of an hour or more. The values of statements (URIs with
    signatures, webhooks' addresses) stay out of errors, and so out of logs.
    """
    return create_engine(
        str(settings.database_url),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "spice", **GIVES_UP},
    )


def make_reading_sessions(engine: Engine) -> Sessions:
    """Sessions without transactions, for those who only read: each statement is one by itself.

    As READ COMMITTED has it, each statement sees what was committed before it; so nothing is lost, and neither a BEGIN
    nor a ROLLBACK goes over the wire.
    """
    return make_sessions(engine.execution_options(isolation_level="AUTOCOMMIT"))


def make_sessions(engine: Engine) -> Sessions:
    """A session factory. Objects stay readable after commit: they are turned into responses then."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    scoping.install(sessions)
    return sessions
