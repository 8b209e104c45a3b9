"""The whole service as one process tree: embedded servers, API and workers, each watched."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
from sqlalchemy import create_engine

from app.access import keys, projects
from app.access.secrets import make_secret
from app.core.db.engine import make_sessions
from app.core.db.migrate import OtherSchema, upgrade
from app.core.db.tables import Scope
from app.core.lifecycle.leases import expire_all
from app.local.errors import LocalServerError
from app.local.leftovers import MARK, marked, stop_all
from app.local.output_log import OutputLog
from app.local.ports import check_port
from app.local.servers import EmbeddedServers
from app.local.supervisor import OWN_NAME, Child, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from app.core.settings import Settings

READY_S = 60.0
TICK_S = 0.2
API_GRACE_S = 8.0
WORKER_GRACE_S = 10.0
SERVER_PAUSE_S = 5.0
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - what they mean to a client


class NotReadyError(LocalServerError):
    """The API did not answer in time."""


class _StopRequested(BaseException):
    """A signal to stop arrived during the start."""


@dataclass(frozen=True)
class ServePlan:
    """What to run.

    Attributes:
        settings: The service's settings; its server URLs are replaced by those of the embedded servers.
        workers: Worker processes, from 0.
        allowed_roots: Directories that `file://` URIs may name.
    """

    settings: Settings
    workers: int
    allowed_roots: tuple[Path, ...]

    @property
    def data_dir(self) -> Path:
        """The data directory, absolute."""
        return self.settings.data_dir.expanduser().resolve()

    @property
    def auth(self) -> Literal["keys", "off"]:
        """Whether requests need a key: not while only this machine can reach the API, unless SPICE_AUTH says so."""
        if "auth" not in self.settings.model_fields_set and self.settings.on_loopback:
            return "off"
        return self.settings.auth

    @property
    def first_key(self) -> Path:
        """Where the first API key is written, for the owner of the data directory to read."""
        return self.data_dir / "first-key"

    @property
    def api_url(self) -> str:
        """Where this machine finds the API."""
        host = ANY_HOSTS.get(self.settings.host, self.settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"


def default_roots(settings: Settings) -> tuple[Path, ...]:
    """The directories that `file://` URIs may name if nobody has said which.

    `datasets` and `models` in the data directory; and, while only this machine can reach the API, the directory
    that it was started in (unless that is `/`).
    """
    data_dir = settings.data_dir.expanduser().resolve()
    here = Path.cwd()
    roots = (data_dir / "datasets", data_dir / "models")
    if settings.host in LOOPBACK_HOSTS and here != Path(here.anchor):
        return (*roots, here)
    return roots


def _forget_dead_workers(database_url: str) -> None:
    """Expire all leases: this start has stopped every worker of earlier runs, so no row is worked on."""
    engine = create_engine(database_url)
    with make_sessions(engine)() as session:
        expire_all(session)
    engine.dispose()


def _make_first_key(database_url: str, file: Path) -> None:
    """Make an API key for the owner if no key is valid; otherwise nobody could use the service."""
    engine = create_engine(database_url)
    with make_sessions(engine)() as session:
        project = projects.find(session, "default")
        if project is not None and not keys.any_usable(session):
            secret = make_secret()
            file.unlink(missing_ok=True)
            file.touch(mode=0o600, exist_ok=False)
            file.write_text(f"{secret.token}\n")
            keys.create(session, project, secret, "first", Scope.ADMIN, None)
    engine.dispose()


class Service:
    """Starts everything in order, keeps it running, stops it in the opposite order."""

    def __init__(self, plan: ServePlan, say: Callable[[str, str], None], ready: Callable[[], None]) -> None:
        """Describe the service; nothing is started.

        Args:
            plan: What to run.
            say: Is told a name and a line, for everything that the processes write and that happens to them.
            ready: Is called once the API answers.
        """
        self.plan = plan
        self._ready = ready
        self._asked_to_stop = False
        self._hurry = False
        self._interruptible = False
        self._servers = EmbeddedServers(plan.data_dir)
        self._log = OutputLog(plan.data_dir / "logs" / "serve.log", dated=True)
        self._tell = say
        self._supervisor: Supervisor | None = None
        self._look_at_servers_at = 0.0

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP; a second one ends all patience.

        Raises:
            LocalServerError: Something is in the way of the start. What had been started is stopped again.
        """
        with self._signals():
            try:
                with self._interruptibly():
                    self._start()
                while not self._asked_to_stop:
                    self._tick()
            except _StopRequested:
                pass
            finally:
                self._stop()

    def _start(self) -> None:
        plan = self.plan
        if plan.workers and importlib.util.find_spec("torch") is None:
            raise LocalServerError(
                "a worker needs the packages of the extra 'worker', and torch is not installed: "
                "pip install '.[worker]' in the repository, or start without workers by --workers 0"
            )
        self._servers.lock()
        stop_all(marked(plan.data_dir), signal.SIGTERM, patience_s=API_GRACE_S)
        check_port(plan.settings.host, plan.settings.port)
        for directory in ("datasets", "models"):
            (plan.data_dir / directory).mkdir(parents=True, exist_ok=True)
        self._say(OWN_NAME, f"starting PostgreSQL and Valkey on {plan.data_dir}")
        self._servers.start()
        try:
            upgrade(self._servers.database_url)
        except OtherSchema as error:
            raise LocalServerError(str(error)) from error
        _forget_dead_workers(self._servers.database_url)
        if plan.auth == "keys":
            _make_first_key(self._servers.database_url, plan.first_key)
        self._supervisor = Supervisor(self._children(), self._say)
        self._wait_till_ready(self._supervisor)
        self._say(OWN_NAME, "ready")
        self._ready()

    def _children(self) -> list[Child]:
        environment = self._environment()
        logs = self.plan.data_dir / "logs"
        spice = [sys.executable, "-m", "app.cli"]  # what the command `spice` runs
        names = ["worker"] if self.plan.workers == 1 else [f"worker-{n + 1}" for n in range(self.plan.workers)]
        return [
            Child("api", [*spice, "api"], environment, logs / "api.log", API_GRACE_S),
            *(Child(name, [*spice, "worker"], environment, logs / f"{name}.log", WORKER_GRACE_S) for name in names),
        ]

    def _environment(self) -> dict[str, str]:
        """The environment of the children: this process's environment with the settings of this run."""
        settings = self.plan.settings
        environment = {
            **os.environ,
            "SPICE_DATABASE_URL": self._servers.database_url,
            "SPICE_REDIS_URL": self._servers.redis_url,
            "SPICE_HOST": settings.host,
            "SPICE_PORT": str(settings.port),
            "SPICE_AUTH": self.plan.auth,
            "SPICE_DATA_DIR": str(self.plan.data_dir),
            "SPICE_ALLOWED_ROOTS": ",".join(str(root) for root in self.plan.allowed_roots),
            "PYTHONUNBUFFERED": "1",
            MARK: str(self.plan.data_dir),
        }
        if self.plan.workers > 1 and settings.torch_threads is None:
            cores = os.cpu_count() or 1
            environment["SPICE_TORCH_THREADS"] = str(max(1, cores // self.plan.workers))
        return environment

    def _wait_till_ready(self, supervisor: Supervisor) -> None:
        deadline = time.monotonic() + READY_S
        answer = "no answer"
        while time.monotonic() < deadline:
            supervisor.tick(TICK_S)
            with contextlib.suppress(httpx.TransportError):
                response = httpx.get(f"{self.plan.api_url}/readyz", timeout=5, trust_env=False)
                if response.is_success:
                    return
                answer = response.text
        raise NotReadyError(
            f"the API at {self.plan.api_url} is not ready after {READY_S:.0f} s ({answer}): "
            f"see {self.plan.data_dir / 'logs' / 'api.log'}"
        )

    def _tick(self) -> None:
        if self._supervisor is not None:
            self._supervisor.tick(TICK_S)
        if time.monotonic() < self._look_at_servers_at:
            return
        try:
            with self._interruptibly():
                revived = self._servers.revive()
        except LocalServerError as error:
            self._look_at_servers_at = time.monotonic() + SERVER_PAUSE_S
            self._say(OWN_NAME, f"{error}\nnext try in {SERVER_PAUSE_S:.0f} s")
            return
        for name in revived:
            self._say(OWN_NAME, f"{name} had died and runs again")

    def _stop(self) -> None:
        """Stop the workers first, which still write their progress; then the API; then the servers."""
        if self._supervisor is not None:
            self._say(OWN_NAME, "stopping")
            api, *workers = self._supervisor.children
            self._supervisor.stop(workers, lambda: self._hurry)
            self._supervisor.stop([api], lambda: self._hurry)
        self._servers.stop()
        self._log.close()

    def _say(self, name: str, line: str) -> None:
        """Tell what a process writes, which has a log of its own, or what happens, which goes into ours."""
        if name == OWN_NAME:
            self._log.write(line)
        self._tell(name, line)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            numbers.append(signal.SIGHUP)  # sent when the terminal is closed
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _interruptibly(self) -> Iterator[None]:
        """Let a signal interrupt the block; outside of such blocks a signal is only recorded."""
        self._interruptible = True
        try:
            if self._asked_to_stop:
                raise _StopRequested
            yield
        finally:
            self._interruptible = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._hurry = self._asked_to_stop
        self._asked_to_stop = True
        if self._interruptible:
            self._interruptible = False
            raise _StopRequested
