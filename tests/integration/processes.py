"""Worker and API processes that a test starts, kills, stops and starts again; some break at a chosen point.

They are forked from a process that has imported everything and run nothing (multiprocessing's forkserver), so that one
costs milliseconds and not the seconds that importing torch takes. tests/integration/local/test_local_serve.py starts
them by their commands.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.conftest import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from app.core.settings import Settings

Fault = tuple[str, ...]
"""A function of tests/integration/faults.py, and its arguments."""

SHORT_LEASE_S = 1.0
"""Of a worker that is going to die: so soon it is taken for dead."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("tests.integration.processes", "tests.integration.faults"),
        *(
            "workers.main",
            "workers.stages.job",
            "workers.stages.proof_run",
            "workers.stages.registration",
            "workers.stages.preview",
            "app.main",
            "app.core.storage.s3",
        ),
        *("transformers.models.llama", "psycopg", "uvicorn", "aiohttp", "s3fs"),
    ]
)


class Running:
    """A process, with the names that `subprocess.Popen` has for what is done to one."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._process: BaseProcess = _context.Process(target=target, args=arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 90) -> int | None:
        """The exit code; negative for a signal."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"process {self.pid} still runs after {timeout} s"
        return self._process.exitcode


class Processes:
    """What a test has started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[Running] = []

    def start(self, *faults: Fault, **changed: object) -> Running:
        """A worker.

        Args:
            faults: What is to go wrong in it.
            changed: Settings that differ from the service's.
        """
        return self._started(_work, self._environment(changed), faults)

    def api(self, *faults: Fault) -> tuple[Running, str]:
        """An API process that answers, and its URL."""
        port = _free_port()
        running = self._started(_serve, self._environment({"port": port}), faults)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/healthz", trust_env=False)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return running, url
        raise AssertionError("the API does not answer")

    def stop(self) -> None:
        """End all: in order those that can, the others at once."""
        for process in self._running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._running:
            try:
                process.wait(10)
            except AssertionError:
                process.kill()
                process.wait()

    def _environment(self, changed: dict[str, Any]) -> dict[str, str]:
        """The test's own, not that of the server of forks, with the settings in it."""
        return {**os.environ, **environment(self._settings.model_copy(update=changed))}

    def _started(self, target: Callable[..., None], *arguments: Any) -> Running:
        running = Running(target, *arguments)
        self._running.append(running)
        return running


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _work(variables: dict[str, str], faults: tuple[Fault, ...]) -> None:
    from workers.main import run  # noqa: PLC0415 - imported by the server of forks

    _prepare(variables, faults)
    sys.exit(run())


def _serve(variables: dict[str, str], faults: tuple[Fault, ...]) -> None:
    import uvicorn  # noqa: PLC0415

    from app.core.settings import get_settings  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415

    _prepare(variables, faults)
    uvicorn.run(create_app(), host="127.0.0.1", port=get_settings().port, log_level="warning")


def _prepare(variables: dict[str, str], faults: tuple[Fault, ...]) -> None:
    from tests.integration import faults as known  # noqa: PLC0415

    os.environ.clear()
    os.environ.update(variables)
    for name, *arguments in faults:
        getattr(known, name)(*arguments)
