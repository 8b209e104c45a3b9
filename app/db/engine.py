"""Engine and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from app.db import scoping

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.settings import Settings


class Sessions(Protocol):
    """Makes sessions, each for one `with`."""

    def __call__(self, *, info: dict[Any, Any] = ...) -> Session:
        """A session; `info` is what `app.db.scoping` asks it for."""


def make_engine(settings: Settings) -> Engine:
    """An engine whose connections are checked before use, so that a restarted Postgres costs no request."""
    return create_engine(
        str(settings.database_url),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "spice"},
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
