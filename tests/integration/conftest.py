"""A service with a real database, a real queue, a tiny model, and rows out of the standard library's docstrings."""

from __future__ import annotations

import inspect
import json
import os
import statistics
import sys
import textwrap
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from rq.serializers import JSONSerializer

from app.core.db.engine import make_engine, make_sessions
from app.core.queue import queue_name
from app.core.settings import Settings, get_settings
from app.main import create_app
from tests.conftest import empty_queue, settings_over

pytest.register_assert_rewrite("tests.integration.settled", "tests.integration.problems")  # a failure shows values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from app.core.db.engine import Sessions
    from app.local import EmbeddedServers
    from tests.integration.processes import Processes
    from tests.one_database import OneDatabase

ROWS = 60
LONG_ROWS = 400


def real_rows(count: int = ROWS) -> list[dict[str, str]]:
    """Questions about functions of the standard library, answered by their own docstrings."""
    modules = (textwrap, json, statistics, inspect, os)
    rows = [
        {"prompt": f"What does {module.__name__}.{name} do?", "response": inspect.getdoc(member)[:300]}
        for module in modules
        for name, member in sorted(vars(module).items())
        if callable(member) and inspect.getdoc(member)
    ]
    assert len(rows) >= count
    return rows[:count]


@dataclass(frozen=True)
class Service:
    """The API over HTTP, and a worker that runs what is queued.

    Attributes:
        http: The API.
        settings: Of API and worker.
        directory: Where datasets are written.
        model_uri: Of the tiny model.
        shared: Whether tests share it, and its settings are in the environment only while its worker runs.
    """

    http: TestClient
    settings: Settings
    directory: Path
    model_uri: str
    shared: bool = False

    def write_dataset(self, rows: list[dict[str, Any]], name: str = "train.jsonl") -> str:
        """Write rows as JSONL; its URI."""
        path = self.directory / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path.as_uri()

    def request(self, dataset_uri: str | None = None, **selection: Any) -> dict[str, Any]:
        """A job's body over the tiny model, its dataset real rows unless given."""
        return {
            "dataset": {"uri": dataset_uri or self.write_dataset(real_rows())},
            "model": {"uri": self.model_uri, "max_length": 128},
            "gradients": {"rank": 4, "sketch_dim": 64},
            "selection": {"budget": {"fraction": 0.2}, **selection},
        }

    def submit(self, body: dict[str, Any]) -> str:
        """POST a job; its id."""
        response = self.http.post("/jobs", json=body)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def work(self) -> None:
        """Run a worker in this process until the queue is empty."""
        from workers.main import InProcessWorker  # noqa: PLC0415 - torch, which many tests do without

        queues = [queue_name(self.settings, kind) for kind in self.settings.worker_queues]
        settings = in_environment(self.settings, keep_context=True) if self.shared else nullcontext()
        with settings, Redis.from_url(str(self.settings.redis_url)) as connection:
            InProcessWorker(queues, connection=connection, serializer=JSONSerializer).work(burst=True)

    def job(self, job_id: str) -> dict[str, Any]:
        """GET a job."""
        response: httpx.Response = self.http.get(f"/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def estimate(self, body: dict[str, Any], path: str = "/estimates") -> httpx.Response:
        """Ask for an estimate, work, and look: the answer, 422 for a request that is refused at once."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.jobs.estimates.WAIT_S", 0.0)  # the worker of this process begins after the request
            response: httpx.Response = self.http.post(path, json=body)
        if response.status_code != 202:
            return response
        self.work()
        answer: httpx.Response = self.http.get(response.headers["Location"])
        return answer

    def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Submit, work, and look.

        Work ends when the queue is empty, also where a busy machine let the reconciler put a row back a moment later.
        """
        job_id = self.submit(body)
        deadline = time.monotonic() + 120
        while True:
            self.work()
            job = self.job(job_id)
            if job["finished_at"] is not None or time.monotonic() > deadline:
                return job
            time.sleep(0.2)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the tiny model."""
    from tests.integration.tiny_model import save_tiny_model  # noqa: PLC0415 - it imports torch and transformers

    texts = [row["prompt"] + " " + row["response"] for row in real_rows()]
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts)


@pytest.fixture
def service_settings(request: pytest.FixtureRequest, settings: Settings, tiny_model: Path) -> Settings:
    """The test's own settings, as a service has them.

    Worker processes share a job or are killed in its midst: the reconciler looks often, and shards are small. They are
    small too where a test is marked `small_shards`; elsewhere a job of the tests has one shard, as most jobs' time is
    that of their shards.
    """
    processes = "workers" in request.fixturenames
    update: dict[str, Any] = {"reconcile_s": 0.5} if processes else {}
    if processes or request.node.get_closest_marker("small_shards"):
        update |= {"shard_rows": 16, "token_budget": 512}
    return of_a_service(settings, tiny_model).model_copy(update=update)


def of_a_service(settings: Settings, tiny_model: Path) -> Settings:
    """Shards of 64 rows, and the model's directory allowed; nothing expires but where a test has it expire.

    A worker of the test's own process loses no message, and a look of the reconciler takes as long as a small request.
    """
    return settings.model_copy(
        update={
            "allowed_roots": (*settings.allowed_roots, str(tiny_model.parent)),
            "shard_rows": 64,
            "token_budget": 4096,
            "torch_threads": 1,
            "reconcile_s": 2.0,
            "lease_s": 20.0,
            "expiry_s": 3600.0,
            "chunk_rows": 5,
        }
    )


@pytest.fixture
def sessions(settings: Settings) -> Iterator[Sessions]:
    """Sessions of a test's own, on its database; they see every project."""
    engine = make_engine(settings)
    yield make_sessions(engine)
    engine.dispose()


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of a process."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        f"SPICE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }


@contextmanager
def in_environment(settings: Settings, *, keep_context: bool = False) -> Iterator[None]:
    """Have the worker of this process take its settings from the environment, as everywhere.

    A context that is kept serves the next time that the same settings are in the environment, as it serves one job
    after the other in a worker process: it holds models, and statements that SQLAlchemy has compiled.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(settings).items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        forget_context(unless_of=settings if keep_context else None)
        yield
    get_settings.cache_clear()
    if not keep_context:
        forget_context()


def forget_context(*, unless_of: Settings | None = None) -> None:
    """Forget the context of this process's worker, where a worker has been imported."""
    if "workers.runtime.context" in sys.modules:
        current_context = sys.modules["workers.runtime.context"].current_context
        if current_context.cache_info().currsize and current_context().settings != unless_of:
            current_context.cache_clear()


def _client(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), "http://localhost", raise_server_exceptions=False)


@pytest.fixture
def service(service_settings: Settings, tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own."""
    with in_environment(service_settings), _client(service_settings) as http:
        yield Service(http, service_settings, tmp_path, tiny_model.as_uri())


@pytest.fixture(scope="module")
def shared_service(
    servers: EmbeddedServers, shared_database: OneDatabase, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that the tests of a module share: for requests that are refused, and for looking at finished jobs.

    Its jobs, and the sketches of their rows, stay until the last of the tests is done. A module whose tests all do with
    it says so by a fixture `service` of its own, of the scope `module`.
    """
    directory = tmp_path_factory.mktemp("shared")
    redis_url = empty_queue(f"{servers.redis_url.removesuffix('/0')}/1")
    settings = of_a_service(settings_over(shared_database.fresh(), redis_url, directory), tiny_model)
    with _client(settings) as http:
        yield Service(http, settings, directory, tiny_model.as_uri(), shared=True)
    forget_context()


@pytest.fixture
def workers(service: Service) -> Iterator[Processes]:
    """Worker processes over the service, ended with the test."""
    from tests.integration.processes import Processes  # noqa: PLC0415 - it imports this file

    processes = Processes(service.settings)
    yield processes
    processes.stop()


@pytest.fixture
def long_body(service: Service) -> dict[str, Any]:
    """A job that takes some seconds: many rows, small shards."""
    rows = (real_rows() * (LONG_ROWS // ROWS + 1))[:LONG_ROWS]
    body = service.request(
        service.write_dataset([{**row, "prompt": f"{i}: {row['prompt']}"} for i, row in enumerate(rows)])
    )
    body["gradients"]["sketch_dim"] = 512
    return body
