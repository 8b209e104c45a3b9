"""How much faster two workers read a large dataset than one: parsing, chat template, tokenizer, tokens in the store.

Each worker has one processor core, with all its threads and the process that renders its templates. A job's reading is
timed by its events, from the stage `reading` to the stage `gradients`; the job is then cancelled.

    python -m benchmarks.reading_together --rows 1000000

measures another number of rows, and says what memory each worker took at most, and what lies on disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
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


@dataclass(frozen=True)
class Took:
    """What reading took.

    Attributes:
        seconds: From its beginning to that of the gradients.
        memory: The most that each worker had resident of itself, bytes.
        disk: Bytes of each directory of the service's data.
    """

    seconds: float
    memory: list[int]
    disk: dict[str, int]


def rows(*, quick: bool = False) -> list[BenchRow]:
    """The one row of this suite."""
    count = QUICK_ROWS if quick else ROWS
    one, two, size = measure(count)
    return [
        BenchRow(
            name="scaling/read_two_workers",
            value=one.seconds / two.seconds,
            unit="x",
            target=TARGET,
            baseline=f"one worker on one core, {count:,} short rows in {RANGES} ranges of "
            f"{size / RANGES / 1e6:.1f} MB: {one.seconds:.1f} s",
        )
    ]


def measure(count: int) -> tuple[Took, Took, int]:
    """What one worker takes to read so many rows, what two take, and the bytes of the rows."""
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
        one, two = (_read_by(workers, servers, directory, model, dataset, size // RANGES) for workers in (1, 2))
    return one, two, size


def _read_by(
    workers: int, servers: EmbeddedServers, directory: Path, model: Path, dataset: Path, range_bytes: int
) -> Took:
    """A job's reading; nothing is found from before."""
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
    with (
        TestClient(create_app(settings), "http://localhost") as http,
        worker_processes(settings, workers, pinned=True) as processes,
    ):
        warm = [_submit(http, model, _small(directory, number)) for number in range(workers)]
        for job_id in warm:
            _until(http, job_id, "succeeded")
        job_id = _submit(http, model, dataset)
        _until(http, job_id, "gradients")
        memory = [_most_memory(process) for process in processes]
        parts = (part for part in sorted(settings.data_dir.glob("*/*")) if part.is_dir())
        disk = {str(part.relative_to(settings.data_dir)): _bytes_below(part) for part in parts}
        http.post(f"/jobs/{job_id}/cancel")
        told = http.get(f"/jobs/{job_id}/events").json()["items"]
    at = {event["data"].get("stage"): datetime.fromisoformat(event["at"]) for event in told if event["kind"] == "stage"}
    return Took((at["gradients"] - at["reading"]).total_seconds(), memory, disk)


def _most_memory(worker: int) -> int:
    """The most that a process had resident, of itself and of what it has started since, bytes."""
    family = [psutil.Process(worker), *psutil.Process(worker).children(recursive=True)]
    status = [Path(f"/proc/{one.pid}/status").read_text() for one in family]
    return sum(1024 * int(line.split()[1]) for text in status for line in text.splitlines() if "VmHWM" in line)


def _bytes_below(directory: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in directory.rglob("*") if path.is_file())


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


def main() -> None:
    """Measure so many rows, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    one, two, size = measure(parser.parse_args().rows)
    print(f"{size:,} bytes of rows; two workers are {one.seconds / two.seconds:.2f} times as fast as one")
    for took in (one, two):
        print(took)


if __name__ == "__main__":
    main()
