"""How much faster a job's gradients are with two workers than with one.

    python -m benchmarks scaling [--quick]

The whole service runs on embedded servers; its workers are processes as in production, one CPU thread each, with the
model in memory before the clock starts. Two jobs of the same size over different rows are timed, by what the service
itself reports as the time of the gradients stage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient
from pydantic import RedisDsn

from app.core.db.migrate import upgrade
from app.core.settings import Settings
from app.local import EmbeddedServers
from app.main import create_app
from benchmarks.row import BenchRow
from benchmarks.smollm2 import smollm2_directory
from demo.dataset import write_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, QUICK_ROWS = 96, 24
WARM_UP_ROWS = 4
SHARD_ROWS = 4
TARGET = 1.5
PATIENCE_S = 1800


def rows(*, quick: bool = False) -> list[BenchRow]:
    """The one row of this suite."""
    count = QUICK_ROWS if quick else ROWS
    model = smollm2_directory()
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name, EmbeddedServers(Path(name) / "servers") as servers:
        directory = Path(name)
        settings = Settings(
            _env_file=None,
            database_url=servers.database_url,
            redis_url=RedisDsn(servers.redis_url),
            data_dir=directory / "data",
            allowed_roots=(name, str(model.resolve().parent)),
            torch_threads=1,
            shard_rows=SHARD_ROWS,
            token_budget=512,
            auth="off",
        )
        upgrade(servers.database_url)
        with TestClient(create_app(settings), "http://localhost") as http:
            one, two = (_gradients_s(http, settings, directory, model.resolve(), count, workers) for workers in (1, 2))
    return [
        BenchRow(
            name="gradients/two_workers_vs_one",
            value=one / two,
            unit="x",
            target=TARGET,
            baseline=f"one worker, one thread, SmolLM2-135M, {count} rows in shards of {SHARD_ROWS}: {one:.1f} s",
        )
    ]


def _gradients_s(http: TestClient, settings: Settings, directory: Path, model: Path, count: int, workers: int) -> float:
    """Seconds of a job's gradients stage with that many workers; each first does a job of its own to be warm."""
    with worker_processes(settings, workers):
        for seed in range(workers):
            finished(http, _submit(http, directory, model, WARM_UP_ROWS * workers, seed=10 * workers + seed))
        job = finished(http, _submit(http, directory, model, count, seed=workers))
    return float(job["result"]["seconds"]["gradients"])


def _submit(http: TestClient, directory: Path, model: Path, count: int, seed: int) -> str:
    """A job over `count` rows; another seed means other sketches, so that none is found from before."""
    dataset = directory / f"rows-{count}.jsonl"
    if not dataset.exists():
        write_dataset(dataset, count)
    response = http.post(
        "/jobs",
        json={
            "dataset": {"uri": dataset.as_uri()},
            "model": {"uri": model.as_uri()},
            "gradients": {"sketch_dim": 512, "seed": seed},
            "selection": {"budget": {"count": 1}},
        },
    )
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def finished(http: TestClient, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}").json()
        if job["finished_at"] is not None:
            assert job["state"] == "succeeded", job["error"]
            return job
        time.sleep(0.1)
    raise TimeoutError(f"job {job_id} took more than {PATIENCE_S} s")


@contextmanager
def worker_processes(settings: Settings, count: int, *, pinned: bool = False) -> Iterator[list[int]]:
    """Workers, each `pinned` to a processor core of its own where asked, by their ids; ended with the block."""
    values = settings.model_dump(mode="json", exclude_none=True)
    environment = {
        f"SPICE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    command = [str(Path(sys.executable).with_name("spice")), "worker"]
    processes = [
        subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL) for _ in range(count)
    ]
    for process, core in zip(processes, sorted(os.sched_getaffinity(0)) if pinned else (), strict=False):
        os.sched_setaffinity(process.pid, {core})
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
