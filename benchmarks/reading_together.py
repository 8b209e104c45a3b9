"""How much faster two workers read a large dataset than one: parsing, chat template, tokenizer, tokens in the store.

Each worker has one processor core, with all its threads and the process that renders its templates. A job's reading is
timed by its events, from the stage `reading` to the stage `gradients`; the job is then cancelled.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime
from pathlib import Path

from fastapi.testclient import TestClient
from pydantic import RedisDsn

from app.core.db.migrate import upgrade
from app.core.settings import Settings
from app.local import EmbeddedServers
from app.main import create_app
from benchmarks.row import BenchRow
from benchmarks.scaling import worker_processes
from demo.functions import function_rows
from tests.integration.tiny_model import save_tiny_model

ROWS, QUICK_ROWS = 300_000, 5_000
TARGET = 1.7
RANGES = 16
PATIENCE_S = 1800


def rows(*, quick: bool = False) -> list[BenchRow]:
    """The one row of this suite."""
    count = QUICK_ROWS if quick else ROWS
    texts = [(one.prompt[:60], one.response[:60]) for one in function_rows() if one.is_clean]
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name, EmbeddedServers(Path(name) / "servers") as servers:
        directory = Path(name)
        model = save_tiny_model(directory / "models" / "tiny", [f"{prompt} {response}" for prompt, response in texts])
        dataset = directory / "rows.jsonl"
        with dataset.open("w") as file:
            for number in range(count):
                prompt, response = texts[number % len(texts)]
                file.write(json.dumps({"prompt": f"{number}: {prompt}", "response": response}) + "\n")
        size = dataset.stat().st_size
        one, two = (_seconds(servers, directory, model, dataset, workers, size // RANGES) for workers in (1, 2))
    return [
        BenchRow(
            name="scaling/read_two_workers",
            value=one / two,
            unit="x",
            target=TARGET,
            baseline=f"one worker on one core, {count:,} short rows in {RANGES} ranges of "
            f"{size / RANGES / 1e6:.1f} MB: {one:.1f} s",
        )
    ]


def _seconds(
    servers: EmbeddedServers, directory: Path, model: Path, dataset: Path, workers: int, range_bytes: int
) -> float:
    """Seconds of a job's reading; nothing is found from before."""
    settings = Settings(
        _env_file=None,
        database_url=servers.database_url,
        redis_url=RedisDsn(servers.redis_url),
        data_dir=directory / f"data-{workers}",
        allowed_roots=(str(directory),),
        torch_threads=1,
        read_range_bytes=range_bytes,
        auth="off",
    )
    upgrade(servers.database_url)
    with TestClient(create_app(settings), "http://localhost") as http, worker_processes(settings, workers, pinned=True):
        warm = [_submit(http, model, _small(directory, number)) for number in range(workers)]
        for job_id in warm:
            _until(http, job_id, "succeeded")
        job_id = _submit(http, model, dataset)
        _until(http, job_id, "gradients")
        http.post(f"/jobs/{job_id}/cancel")
        told = http.get(f"/jobs/{job_id}/events").json()["items"]
    at = {event["data"].get("stage"): datetime.fromisoformat(event["at"]) for event in told if event["kind"] == "stage"}
    return (at["gradients"] - at["reading"]).total_seconds()


def _small(directory: Path, number: int) -> Path:
    """A dataset of a few rows: a job over it makes a worker ready."""
    path = directory / f"small-{number}.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{number} {i}", "response": "yes"}) + "\n" for i in range(20)))
    return path


def _submit(http: TestClient, model: Path, dataset: Path) -> str:
    response = http.post(
        "/jobs",
        json={
            "dataset": {"uri": dataset.as_uri()},
            "model": {"uri": model.as_uri(), "max_length": 128},
            "gradients": {"sketch_dim": 64},
            "selection": {"budget": {"count": 1}},
        },
    )
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def _until(http: TestClient, job_id: str, wanted: str) -> None:
    """Wait for a state or a stage."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = http.get(f"/jobs/{job_id}").json()
        if wanted in (job["state"], job["stage"]):
            return
        assert job["state"] != "failed", job["error"]
        time.sleep(0.2)
    raise TimeoutError(f"job {job_id} took more than {PATIENCE_S} s")
