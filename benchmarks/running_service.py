"""A whole service on embedded servers for a benchmark: the API in this process, workers as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient
from pydantic import RedisDsn

from app.core.db.migrate import upgrade
from app.core.settings import Settings
from app.local import EmbeddedServers
from app.main import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

STALLED_S = 1800.0
"""Seconds in which a job tells no progress, and after which it is not waited for any more."""


class RunningService:
    """The API over HTTP, and where its files are."""

    def __init__(self, http: TestClient, settings: Settings, directory: Path) -> None:
        """Of a service that runs."""
        self.http, self.settings, self.directory = http, settings, directory

    def submit(self, body: dict[str, Any]) -> str:
        """POST a job; its id."""
        response = self.http.post("/jobs", json=body)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def ended(self, job_id: str, looked: Any = None) -> dict[str, Any]:  # noqa: ANN401 - a function of the job
        """The job once it has succeeded; `looked` is told of it at each look, rarer the longer the job takes."""
        began = time.monotonic()
        seen, moved_at = None, began
        while time.monotonic() - moved_at < STALLED_S:
            job: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
            if looked is not None:
                looked(job)
            if job["finished_at"] is not None:
                assert job["state"] == "succeeded", job["error"]
                return job
            if job["updated_at"] != seen:
                seen, moved_at = job["updated_at"], time.monotonic()
            time.sleep(min(1.0, max(0.05, (time.monotonic() - began) / 100)))
        raise TimeoutError(f"job {job_id} has told nothing for {STALLED_S:g} s")

    @contextmanager
    def workers(self, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Worker processes, one CPU thread each."""
        values = self.settings.model_dump(mode="json", exclude_none=True)
        environment = {
            f"SPICE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }
        command = [str(Path(sys.executable).with_name("spice")), "worker"]
        processes = [
            subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        try:
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


@contextmanager
def running_service(*roots: Path, **changed: Any) -> Iterator[RunningService]:  # noqa: ANN401 - settings
    """A service without workers.

    Args:
        *roots: Directories that URIs may name besides its own.
        **changed: Settings that differ from the default.
    """
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        servers = stack.enter_context(EmbeddedServers(directory / "servers"))
        settings = Settings(
            _env_file=None,
            database_url=servers.database_url,
            redis_url=RedisDsn(servers.redis_url),
            data_dir=directory / "data",
            allowed_roots=(name, *map(str, roots)),
            torch_threads=1,
            auth="off",
            log_level="ERROR",
            **changed,
        )
        upgrade(servers.database_url)
        http = stack.enter_context(TestClient(create_app(settings), "http://localhost"))
        yield RunningService(http, settings, directory)
