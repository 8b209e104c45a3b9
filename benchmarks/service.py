"""How fast the service answers polls and takes jobs, against endpoints that make one statement and nothing else.

    python -m benchmarks service [--quick]

On embedded servers, with 10,000 jobs in the table and keys asked for. The service and the bare one (`bare_service`)
are a process each with the same settings; the load comes from a third (`load`). They take turns, so that whatever else
the machine does falls on both; a figure is the median over the turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import RedisDsn
from sqlalchemy import insert, select

from app.access import keys, projects
from app.access.secrets import make_secret
from app.core.contracts.job_request import JobRequest
from app.core.db.engine import make_engine, make_sessions
from app.core.db.migrate import upgrade
from app.core.db.tables import Job, Scope, Stage, State
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from app.core.settings import Settings
from app.local import EmbeddedServers
from app.local.process import free_port
from benchmarks.row import BenchRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.core.db.engine import Sessions

JOBS = 10_000
CONNECTIONS = 8
TURNS, QUICK_TURNS = 5, 1
SECONDS, QUICK_SECONDS = 3.0, 1.0
WARM_UP_S = 1.0
POLL_TARGET, SUBMIT_TARGET = 0.7, 0.3
SUBMIT_P99_TARGET_MS = 100.0
READY_S = 60.0
POLLED = 500
PROGRESS = {"done": 41984, "total": 100000, "unit": "samples", "rate": 212.4, "eta_s": 273.2}


@dataclass(frozen=True)
class Turn:
    """What one turn of load came to."""

    rate: float
    latencies_ms: Sequence[float]

    def quantile(self, q: float) -> float:
        """A latency, in milliseconds."""
        return sorted(self.latencies_ms)[min(int(q * len(self.latencies_ms)), len(self.latencies_ms) - 1)]


def rows(*, quick: bool = False) -> list[BenchRow]:
    """Polls and submissions."""
    turns, seconds = (QUICK_TURNS, QUICK_SECONDS) if quick else (TURNS, SECONDS)
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        servers = stack.enter_context(EmbeddedServers(directory / "servers"))
        settings = Settings(
            _env_file=None,
            database_url=servers.database_url,
            redis_url=RedisDsn(servers.redis_url),
            data_dir=directory / "data",
            allowed_roots=(name,),
            log_level="WARNING",
        )
        upgrade(servers.database_url)
        engine = make_engine(settings)
        ids, token = _fill(make_sessions(engine), directory)
        _enqueue(settings, make_sessions(engine))
        engine.dispose()
        headers = {"Authorization": f"Bearer {token}"}
        polls = [{"method": "GET", "path": f"/jobs/{job_id}", "headers": headers} for job_id in ids[:POLLED]]
        submit = {"method": "POST", "path": "/jobs", "headers": headers, "body": json.dumps(_request(directory))}
        ours, bare = (stack.enter_context(_serving(kind, settings, directory)) for kind in ("ours", "bare"))
        polled = _measure(ours, bare, polls, turns, seconds)
        submitted = _measure(ours, bare, [submit], turns, seconds)
    return [
        _ratio("service/poll_vs_bare", POLL_TARGET, "one SELECT by primary key of the same row", polled),
        _ratio("service/submit_vs_bare", SUBMIT_TARGET, "one INSERT and COMMIT of the body", submitted),
        BenchRow(
            name="service/submit_p99",
            value=_quantile(submitted.ours, 0.99),
            unit="ms",
            target=SUBMIT_P99_TARGET_MS,
            smaller_is_better=True,
            baseline=f"the bare endpoint: {_quantile(submitted.bare, 0.99):.1f} ms; {_circumstances(submitted)}",
        ),
    ]


@dataclass(frozen=True)
class Measured:
    """Turns of the service and of the bare endpoint, one after the other."""

    ours: Sequence[Turn]
    bare: Sequence[Turn]


def _measure(ours: int, bare: int, requests: list[dict[str, Any]], turns: int, seconds: float) -> Measured:
    for port in (ours, bare):
        _load(port, requests, WARM_UP_S)
    pairs = [(_load(ours, requests, seconds), _load(bare, requests, seconds)) for _ in range(turns)]
    return Measured(*zip(*pairs, strict=True))


def _ratio(name: str, target: float, against: str, measured: Measured) -> BenchRow:
    return BenchRow(
        name=name,
        value=statistics.median(one.rate / other.rate for one, other in zip(measured.ours, measured.bare, strict=True)),
        unit="x",
        target=target,
        baseline=f"a bare FastAPI endpoint, {against}, same pool and server: {_told(measured.bare)}; the service, "
        f"key checked: {_told(measured.ours)}; {_circumstances(measured)}",
    )


def _circumstances(measured: Measured) -> str:
    return f"{JOBS} jobs in the table, {CONNECTIONS} connections, median of {len(measured.ours)} turns"


def _told(turns: Sequence[Turn]) -> str:
    rate = statistics.median(turn.rate for turn in turns)
    p50, p95, p99 = (_quantile(turns, q) for q in (0.5, 0.95, 0.99))
    return f"{rate:.0f} a second, p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} ms"


def _quantile(turns: Sequence[Turn], q: float) -> float:
    """A latency in milliseconds, the median over the turns."""
    return statistics.median(turn.quantile(q) for turn in turns)


def _load(port: int, requests: list[dict[str, Any]], seconds: float) -> Turn:
    plan = {"port": port, "requests": requests, "connections": CONNECTIONS, "seconds": seconds}
    command = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found["statuses"]) <= {"200", "202"}, found["statuses"]
    latencies = [1000 * seconds for seconds in found["latencies"]]
    return Turn(len(latencies) / found["seconds"], latencies)


@contextmanager
def _serving(kind: str, settings: Settings, directory: Path) -> Iterator[int]:
    port = free_port()
    values = settings.model_copy(update={"port": port}).model_dump(mode="json", exclude_none=True)
    environment = {
        f"SPICE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    command = {"ours": ("app.cli", "api"), "bare": ("benchmarks.bare_service", str(port))}[kind]
    log = (directory / f"{kind}.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, **environment}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            _wait_until_served(port, process, Path(log.name))
            yield port
        finally:
            process.terminate()


def _wait_until_served(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/openapi.json", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(log.read_text())


def _request(directory: Path) -> dict[str, Any]:
    model = directory / "model"
    model.mkdir(exist_ok=True)
    return {
        "dataset": {"uri": (directory / "train.jsonl").as_uri()},
        "model": {"uri": model.as_uri()},
        "selection": {"budget": {"fraction": 0.1}},
        "name": "load",
    }


def _enqueue(settings: Settings, sessions: Sessions) -> None:
    """Give the jobs that wait their messages, as they have in service: or the reconciler would do so meanwhile."""
    queue = TaskQueue(settings)
    with sessions() as session:
        queued = session.execute(select(Job.id, Job.dispatch).where(Job.state == State.QUEUED)).tuples()
        queue.put([Waiting(Job, job_id, dispatch) for job_id, dispatch in queued])
    queue.close()


def _fill(sessions: Sessions, directory: Path) -> tuple[list[uuid.UUID], str]:
    """Jobs in all states, as they are when they are polled; their ids in no order of time, and a key that sees them."""
    (directory / "train.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    request = JobRequest.model_validate(_request(directory)).model_dump(mode="json", exclude={"name", "metadata"})
    secret = make_secret()
    jobs = []
    for number in range(JOBS):
        state = (State.QUEUED, State.RUNNING, State.CANCELLED, State.RUNNING)[number % 4]
        running = state is State.RUNNING
        jobs.append(
            {
                "id": uuid.uuid4(),
                "request": request,
                "state": state,
                "stage": Stage.READING if running else None,
                "progress": PROGRESS if running else None,
                "lease_token": uuid.uuid4() if running else None,
            }
        )
    with sessions() as session:
        project = projects.create(session, "load")
        keys.create(session, project, secret, "load", Scope.WRITE, None)
        session.execute(insert(Job), [{**job, "project_id": project.id} for job in jobs])
        session.commit()
    return [job["id"] for job in jobs], secret.token
