"""`/readyz` where something is missing."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import pytest
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import text

from app.core.db.engine import make_engine, make_sessions
from app.core.queue import TaskQueue
from app.core.storage import StorageFailed
from app.core.storage.local import LocalArtifacts
from app.health.readiness import Probes
from app.main import create_app
from tests.integration.deadlines import soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore
    from app.local import EmbeddedServers

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


class Deaf(LocalArtifacts):
    """A store that does not answer, until told."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.answer = threading.Event()

    def write(self, name: str, content: bytes) -> None:
        self.answer.wait(10)
        super().write(name, content)


class Full(LocalArtifacts):
    """A store that takes no more; as a file system cannot be filled here."""

    def write(self, name: str, content: bytes) -> None:
        raise StorageFailed(f"no space for the {len(content)} bytes of {name}")


@contextmanager
def looking(settings: Settings, artifacts: ArtifactStore) -> Iterator[Probes]:
    engine, queue = make_engine(settings), TaskQueue(settings)
    probes = Probes(make_sessions(engine), queue, artifacts)
    yield probes
    probes.close()
    queue.close()
    engine.dispose()


def missing(settings: Settings, artifacts: ArtifactStore) -> dict[str, str]:
    with looking(settings, artifacts) as probes:
        found = probes.checks()
    assert all((check.remedy is None) == check.ok for check in found)
    return {check.name: check.detail for check in found if check.required and not check.ok}


def test_every_server_that_is_away_is_named(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"database_url": NOWHERE, "redis_url": "redis://127.0.0.1:1/0"})
    found = missing(away, Full(tmp_path))
    assert found.keys() == {"postgres", "migrations", "redis", "artifacts"}
    assert "does not take writes" in found["artifacts"]


def test_an_old_schema_is_named(empty_database_url: str, settings: Settings, tmp_path: Path) -> None:
    found = missing(settings.model_copy(update={"database_url": empty_database_url}), LocalArtifacts(tmp_path))
    assert found.keys() == {"migrations"}
    assert "nothing" in found["migrations"]


def wrong(probes: Probes) -> dict[str, str]:
    return {check.name: check.detail for check in probes.checks() if check.required and not check.ok}


def test_a_store_that_does_not_answer_holds_nobody_up(settings: Settings, tmp_path: Path) -> None:
    store = Deaf(tmp_path)
    with looking(settings, store) as probes:
        began = time.monotonic()
        assert wrong(probes) == {"artifacts": "the artifact store did not take a write within 2 s"}
        assert time.monotonic() - began < soon(5)
        store.answer.set()
        deadline = time.monotonic() + 10
        while wrong(probes):
            assert time.monotonic() < deadline
    assert not list(tmp_path.rglob("probes/*")), "it leaves nothing behind"


def test_a_frozen_postgres_is_told_in_time_and_looked_at_by_one_thread(
    settings: Settings, servers: EmbeddedServers, tmp_path: Path
) -> None:
    """It takes the connection and says nothing: no time limit of a statement would help."""
    with looking(settings, LocalArtifacts(tmp_path)) as probes:
        assert wrong(probes) == {}
        family = [psutil.Process(servers.postgres.pid)]
        family += family[0].children(recursive=True)
        before = threading.active_count()
        try:
            for process in family:
                process.suspend()
            for _ in range(3):
                began = time.monotonic()
                told = wrong(probes)
                assert told["postgres"] == "Postgres did not take a write within 2 s"
                assert told.keys() == {"postgres", "migrations"}, "what answers is not blamed"
                assert time.monotonic() - began < soon(6)
            assert threading.active_count() <= before
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        deadline = time.monotonic() + 30
        while wrong(probes):
            assert time.monotonic() < deadline


def test_a_postgres_that_takes_no_writes_is_told(settings: Settings, sessions: Sessions, tmp_path: Path) -> None:
    with sessions() as session:
        name = session.scalar(text("SELECT current_database()"))
        session.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        session.commit()
        try:
            found = missing(settings, LocalArtifacts(tmp_path))
        finally:
            session.execute(text(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'))
            session.commit()
    assert found["postgres"] == "Postgres does not take writes"


def test_a_redis_that_takes_no_writes_is_told(settings: Settings, tmp_path: Path) -> None:
    with Redis.from_url(str(settings.redis_url)) as redis:
        redis.config_set("min-replicas-to-write", 1)
        try:
            assert missing(settings, LocalArtifacts(tmp_path)) == {"redis": "Redis does not take writes"}
        finally:
            redis.config_set("min-replicas-to-write", 0)


def test_the_answer_is_a_problem_with_every_check_and_a_line_of_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(settings)) as http:
        state: Any = http.app.state  # type: ignore[attr-defined]
        nowhere = TaskQueue(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
        state.probes = Probes(state.resources.sessions, nowhere, state.resources.artifacts)
        response = http.get("/readyz")
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
        assert response.json()["detail"] == "Redis does not answer: see SPICE_REDIS_URL"
        by_name = {check["name"]: check["ok"] for check in response.json()["checks"]}
        assert (by_name["postgres"], by_name["redis"]) == (True, False)
    (told,) = [record for record in caplog.records if "Redis does not answer" in record.getMessage()]
    assert (told.levelname, told.exc_info) == ("WARNING", None)


def test_a_loop_that_stands_still_is_a_warning(settings: Settings) -> None:
    with TestClient(create_app(settings)) as http:
        turning = {check["name"]: check for check in http.get("/readyz").json()["checks"]}
        loops: Any = http.app.state.probes._loops  # type: ignore[attr-defined]
        names = [loop.name for loop in loops]
        assert names == ["reconciler", "retention", "expiry", "webhooks"]
        assert all(turning[name]["ok"] and not turning[name]["required"] for name in names)
        loops[0].stop()
        response = http.get("/readyz")
    assert response.status_code == 200
    still = next(check for check in response.json()["checks"] if check["name"] == "reconciler")
    assert (still["ok"], still["detail"]) == (False, "reconciler is not running")
    assert "start it again" in still["remedy"]


@pytest.mark.usefixtures("servers")
def test_probes_tell_nobody_where_the_servers_are(settings: Settings) -> None:
    with TestClient(create_app(settings)) as http:
        text = http.get("/readyz").text
    assert "127.0.0.1" not in text
    assert str(settings.data_dir) not in text
