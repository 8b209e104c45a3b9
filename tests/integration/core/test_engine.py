"""A request ends in time, whatever Postgres does."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import main
from app.core.db.engine import LATE_S, make_engine, make_sessions
from tests.integration.deadlines import soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from app.local import EmbeddedServers


@contextmanager
def frozen(servers: EmbeddedServers) -> Iterator[None]:
    """Postgres, all of its processes stopped: connections stay, and nothing is answered."""
    family = [psutil.Process(servers.postgres.pid)]
    family += family[0].children(recursive=True)
    try:
        for process in family:
            process.suspend()
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_frozen_postgres_is_a_503_in_time_and_everything_goes_on_after_it(
    settings: Settings, servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "STATEMENT_S", 0.5)
    with TestClient(main.create_app(settings), "http://localhost") as http:
        assert http.get("/jobs").status_code == 200
        with frozen(servers):
            for ask in (
                lambda: http.get("/jobs"),
                lambda: http.post("/datasets", json={"uri": settings_uri(settings)}),
            ):
                began = time.monotonic()
                answer = ask()
                assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
                assert time.monotonic() - began < soon(15)
        assert http.get("/jobs").status_code == 200
        assert http.post("/datasets", json={"uri": settings_uri(settings)}).status_code == 202


def settings_uri(settings: Settings) -> str:
    return f"file://{settings.allowed_roots[0]}/train.jsonl"


def test_a_statement_that_takes_too_long_is_ended_by_the_server(settings: Settings) -> None:
    engine = make_engine(settings, limit_s=0.3)
    began = time.monotonic()
    with make_sessions(engine)() as session, pytest.raises(OperationalError, match="statement timeout"):
        session.execute(text("SELECT pg_sleep(20)"))
    assert time.monotonic() - began < 0.3 + soon(LATE_S)
    with make_sessions(engine)() as session:
        assert session.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_work_beside_requests_may_take_longer(settings: Settings) -> None:
    engine = make_engine(settings)
    with make_sessions(engine)() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "0"
    engine.dispose()
