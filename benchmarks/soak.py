"""200 small jobs while workers, the API and the servers fail at random: none may be lost or done twice.

    python -m benchmarks soak [--quick]

The whole service runs on embedded servers: an API process and two workers, each started again as soon as it was killed,
as a supervisor does. Redis is wiped, and refuses writes; Postgres is frozen, and read-only. What happens and when comes
from a seeded generator. Each request is submitted twice over the
run, so that a job that was disturbed is held to another one's picks. docs/reliability.md explains the table.
"""

from __future__ import annotations

import inspect
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import textwrap
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from pydantic import RedisDsn
from redis import Redis
from sqlalchemy import create_engine, func, select, text

from app.core.db.engine import make_sessions
from app.core.db.migrate import upgrade
from app.core.db.tables import EventKind, Job, JobEvent, SelectionChunk, State
from app.core.settings import Settings
from app.local import EmbeddedServers
from benchmarks.row import BenchRow
from tests.integration.tiny_model import save_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.process import BaseProcess

    from app.core.db.engine import Sessions

JOBS, QUICK_JOBS = 200, 30
OPEN_AT_ONCE = 8
WORKERS = 2
ROWS = 24
STALLED_S = 180.0
"""Seconds in which no job has ended, and after which none is waited for any more: a busy machine is no fault."""
JOBS_BETWEEN_FAULTS = (1, 4)
MOMENT_S = (0.0, 0.6)
"""After that many jobs have ended, and that much later: at random, so that faults hit every stage."""
SEED = 0
FAULTS = ("worker",) * 6 + ("api", "redis") * 2 + ("frozen", "read_only", "refusing")
OUTAGE_S = 3.0
"""Of a server that answers nothing, or takes no writes: longer than a lease."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["benchmarks.soak", "workers.main", "app.main", "transformers.models.llama"])


@dataclass
class Tally:
    """What was done to the service, and what came of it."""

    jobs: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs in {self.seconds:.0f} s on two workers, kill -9 of a worker {self.faults['worker']} "
            f"times, of the API {self.faults['api']} times, Redis wiped "
            f"{self.faults['redis']} times and refusing writes {self.faults['refusing']} times, Postgres frozen "
            f"{self.faults['frozen']} times and read-only {self.faults['read_only']} times; "
            f"lost {self.lost}, doubled {self.doubled}"
        )


def rows(*, quick: bool = False) -> list[BenchRow]:
    """The two rows of this suite."""
    tally = soak(QUICK_JOBS if quick else JOBS)
    return [
        BenchRow(f"service/soak_{name}", float(count), "jobs", 0.0, str(tally), smaller_is_better=True)
        for name, count in (("lost", tally.lost), ("doubled", tally.doubled))
    ]


def soak(jobs: int) -> Tally:
    """Run the jobs through the faults."""
    with tempfile.TemporaryDirectory(prefix="spice-soak-") as name, ExitStack() as stack:
        directory = Path(name)
        servers = stack.enter_context(EmbeddedServers(directory / "servers"))
        settings = Settings(
            _env_file=None,
            database_url=servers.database_url,
            redis_url=RedisDsn(servers.redis_url),
            data_dir=directory / "data",
            allowed_roots=(name,),
            port=_free_port(),
            auth="off",
            torch_threads=1,
            shard_rows=8,
            token_budget=512,
            lease_s=2.0,
            reconcile_s=0.5,
            max_attempts=50,  # many more workers die here than a job is ever to blame for
            log_level="ERROR",
        )
        upgrade(servers.database_url)
        engine = create_engine(servers.database_url)
        stack.callback(engine.dispose)
        cluster = Cluster(settings, servers)
        stack.callback(cluster.stop)
        client = Client(settings, make_sessions(engine), _bodies(directory))
        tally = _drive(cluster, client, jobs)
        client.judge(tally)
    return tally


class Cluster:
    """The API and the workers, and what happens to them."""

    def __init__(self, settings: Settings, servers: EmbeddedServers) -> None:
        self._servers = servers
        values = settings.model_dump(mode="json", exclude_none=True)
        self._environment = {
            f"SPICE_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }
        self._redis_url = str(settings.redis_url)
        self._api = self._start(_serve)
        self._workers = [self._start(_work) for _ in range(WORKERS)]

    def disturb(self, fault: str, chance: random.Random) -> None:
        """Kill a worker or the API and start it again, wipe Redis, or have a server fail for some seconds."""
        if fault == "redis":
            with Redis.from_url(self._redis_url) as redis:
                redis.flushall()
        elif fault in OUTAGES:
            with OUTAGES[fault](self._servers):
                time.sleep(OUTAGE_S)
        elif fault == "api":
            self._kill(self._api)
            self._api = self._start(_serve)
        else:
            place = chance.randrange(WORKERS)
            self._kill(self._workers[place])
            self._workers[place] = self._start(_work)

    def revive(self) -> None:
        """Start workers again that ended by themselves, as RQ's do that lose Redis in mid-message."""
        self._workers = [worker if worker.is_alive() else self._start(_work) for worker in self._workers]

    def stop(self) -> None:
        for process in (*self._workers, self._api):
            process.terminate()
        for process in (*self._workers, self._api):
            process.join(20)
            process.kill()

    def _start(self, target: Callable[[dict[str, str]], None]) -> BaseProcess:
        process = _context.Process(target=target, args=(self._environment,), daemon=True)
        process.start()
        return process

    @staticmethod
    def _kill(process: BaseProcess) -> None:
        process.kill()
        process.join()


class Client:
    """Submits jobs over HTTP; one whose answer was lost with the API is looked up before it is sent again."""

    def __init__(self, settings: Settings, sessions: Sessions, bodies: list[dict[str, Any]]) -> None:
        self._url = f"http://127.0.0.1:{settings.port}/jobs"
        self._sessions = sessions
        self._bodies = bodies
        self._artifacts = settings.artifacts_path
        self.names: list[str] = []

    def submit(self, number: int, jobs: int) -> None:
        """Send a job until it is accepted; the second half repeats the requests of the first."""
        request = number % (jobs // 2)
        body = dict(self._bodies[request % len(self._bodies)])
        body["gradients"] = {**body["gradients"], "seed": request}
        body["name"] = f"soak-{number}"
        while not self._known(body["name"]):
            try:
                httpx.post(self._url, json=body, timeout=10, trust_env=False).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
        self.names.append(body["name"])

    def open(self) -> int:
        """How many jobs have not ended."""
        with self._sessions() as session:
            return int(
                session.scalar(
                    select(func.count()).select_from(Job).where(Job.state.in_((State.QUEUED, State.RUNNING)))
                )
                or 0
            )

    def judge(self, tally: Tally) -> None:
        """Count what is missing, what is wrong and what is there twice."""
        picks: dict[str, list[list[int]]] = {}
        with self._sessions() as session:
            found = session.scalars(select(Job)).all()
            by_name = {job.name: job for job in found}
            for name in self.names:
                job = by_name.get(name)
                if job is None or job.state is not State.SUCCEEDED:
                    tally.lost += 1
                    print(f"{name}: {'not there' if job is None else (job.state, job.error)}", file=sys.stderr)
                    continue
                indices = session.scalars(
                    select(func.unnest(SelectionChunk.row_indices)).where(
                        SelectionChunk.job_id == job.id, SelectionChunk.label == "main"
                    )
                ).all()
                key = json.dumps({**job.request, "seed": job.request["gradients"]["seed"]}, sort_keys=True)
                picks.setdefault(key, []).append(list(indices))
            successes = session.execute(
                select(JobEvent.job_id, func.count())
                .where(JobEvent.kind == EventKind.STATE, JobEvent.data["state"].astext == State.SUCCEEDED)
                .group_by(JobEvent.job_id)
            ).all()
            tally.doubled = len(found) - len(set(self.names)) + sum(count - 1 for _, count in successes)
        tally.lost += sum(len(same) - same.count(same[0]) for same in picks.values())
        assert self._artifacts is not None
        files = [path.parent.name for path in self._artifacts.glob("jobs/*/rows.*")]
        tally.doubled += len(files) - len({uuid.UUID(name) for name in files})

    def _known(self, name: str) -> bool:
        with self._sessions() as session:
            return session.scalar(select(Job.id).where(Job.name == name)) is not None


@contextmanager
def _frozen(servers: EmbeddedServers) -> Iterator[None]:
    """Postgres takes connections and statements, and says nothing."""
    first = psutil.Process(servers.postgres.pid)
    family = [first, *first.children(recursive=True)]
    try:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def _read_only(servers: EmbeddedServers) -> Iterator[None]:
    """Every transaction is refused its first write; connections of before are ended, so that all hear of it."""
    engine = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        try:
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
            connection.execute(text(END_OTHERS))
            yield
        finally:
            connection.execute(text(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'))
            connection.execute(text(END_OTHERS))
    engine.dispose()


OTHERS = "datname = current_database() AND application_name = 'spice'"
"""The connections of the service; the soak's own have no name."""
END_OTHERS = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"  # noqa: S608 - ours


@contextmanager
def _refusing(servers: EmbeddedServers) -> Iterator[None]:
    """Redis answers, and takes no writes."""
    with Redis.from_url(servers.redis_url) as redis:
        redis.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            redis.config_set("min-replicas-to-write", 0)


OUTAGES: dict[str, Callable[[EmbeddedServers], AbstractContextManager[None]]] = {
    "frozen": _frozen,
    "read_only": _read_only,
    "refusing": _refusing,
}


def _drive(cluster: Cluster, client: Client, jobs: int) -> Tally:
    chance = random.Random(SEED)  # noqa: S311 - chooses faults
    tally = Tally(jobs=jobs)
    began = time.monotonic()
    due_at, due_jobs = math.inf, 1
    submitted, ended, moved_at = 0, 0, began
    deck = list[str]()
    while time.monotonic() - moved_at < STALLED_S:
        waiting = client.open()
        if submitted - waiting != ended:
            ended, moved_at = submitted - waiting, time.monotonic()
        if submitted - waiting >= due_jobs:
            due_at, due_jobs = time.monotonic() + chance.uniform(*MOMENT_S), math.inf
        if submitted < jobs and waiting < OPEN_AT_ONCE:
            client.submit(submitted, jobs)
            submitted += 1
        elif submitted == jobs and not waiting:
            break
        else:
            time.sleep(0.05)
        cluster.revive()
        if time.monotonic() >= due_at:
            deck = deck or chance.sample(FAULTS, len(FAULTS))
            fault = deck.pop()
            cluster.disturb(fault, chance)
            tally.faults[fault] += 1
            due_at, due_jobs = math.inf, submitted - waiting + chance.randint(*JOBS_BETWEEN_FAULTS)
    tally.lost += jobs - submitted
    tally.seconds = time.monotonic() - began
    return tally


def _bodies(directory: Path) -> list[dict[str, Any]]:
    """Requests over a few datasets of the standard library's docstrings; some select in parts."""
    texts = [
        {"prompt": f"What does {module.__name__}.{name} do?", "response": (inspect.getdoc(member) or "")[:200]}
        for module in (textwrap, json, inspect, os)
        for name, member in sorted(vars(module).items())
        if callable(member) and inspect.getdoc(member)
    ]
    model = save_tiny_model(directory / "models" / "tiny", [row["prompt"] + row["response"] for row in texts])
    bodies = []
    for number in range(4):
        dataset = directory / f"rows-{number}.jsonl"
        some = texts[number * ROWS : (number + 1) * ROWS]
        dataset.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        bodies.append(
            {
                "dataset": {"uri": dataset.as_uri()},
                "model": {"uri": model.as_uri(), "max_length": 64},
                "gradients": {"rank": 2, "sketch_dim": 64},
                "selection": {"budget": {"count": 6}, "partitions": 2 if number == 3 else None},
            }
        )
    return bodies


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _work(environment: dict[str, str]) -> None:
    from workers.main import run  # noqa: PLC0415 - imported already by the server of forks

    _prepare(environment)
    sys.exit(run())


def _serve(environment: dict[str, str]) -> None:
    import uvicorn  # noqa: PLC0415

    from app.core.settings import get_settings  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415

    _prepare(environment)
    uvicorn.run(create_app(), host="127.0.0.1", port=get_settings().port, log_level="critical")


def _prepare(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - kills make for much noise
