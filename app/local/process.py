"""A server program as a child process: started on a free port, watched, stopped, and never left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from functools import partial
from typing import IO, TYPE_CHECKING

from app.local.errors import LocalServerError
from app.local.tether import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from signal import Signals

    from app.local.account import Account

LOOPBACK = "127.0.0.1"
PORT_ATTEMPTS = 5
READY_S = 300.0  # recovery after a crash may have to replay much; a dead process is noticed at once
LOG_BYTES = 10 * 1024**2
PORT_TAKEN = ("Address already in use", "could not bind", "Failed listening on port")


class ServerDiedError(LocalServerError):
    """A server ended before it answered."""

    def __init__(self, name: str, status: int | None, log: Path, log_end: str) -> None:
        super().__init__(f"{name} ended with status {status} before it answered. Its log, {log}, ends:\n{log_end}")
        self.port_taken = any(words in log_end for words in PORT_TAKEN)


def started(
    command: Sequence[str],
    output: int | IO[bytes],
    environment: Mapping[str, str],
    dies_by: Signals,
    *,
    directory: Path | None = None,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child process that reads nothing, and that does not outlive this process.

    Args:
        command: Program and arguments.
        output: Where all that it writes goes, as `subprocess` takes it.
        environment: All of its environment.
        dies_by: What it is sent if this process dies.
        directory: Its working directory; None for ours.
        account: As whom it runs; None for us.
    """
    return subprocess.Popen(  # noqa: S603 - our own programs, or out of an installed wheel
        list(command),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process alone, which stops the others in order
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        env=environment,
        preexec_fn=die_with_parent(dies_by),  # noqa: PLW1509 - see tether: takes no lock
    )


class ServerProcess:
    """One server program, tied to this process: when this process dies, however it dies, so does the server."""

    def __init__(self, name: str, directory: Path, log: Path, dies_by: Signals) -> None:
        """Describe the server; nothing is started.

        Args:
            name: What messages call it.
            directory: Its data and working directory.
            log: File that its output is appended to.
            dies_by: Signal that makes it shut down in order, sent if this process dies.
        """
        self.name = name
        self.directory = directory
        self.log = log
        self.dies_by = dies_by
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """The process id, None when not started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(
        self,
        command: Callable[[int], Sequence[str]],
        answers: Callable[[int], bool],
        account: Account | None,
        port: int | None = None,
    ) -> int:
        """Start the server and wait until it answers.

        Args:
            command: The command line for a port.
            answers: Whether the server on a port answers now.
            account: System account to run as; None for our own.
            port: TCP port; None picks a free one.

        Returns:
            The port.

        Raises:
            ServerDiedError: It ended at once.
            LocalServerError: It does not answer.
        """
        for attempt in range(PORT_ATTEMPTS):
            chosen = port or free_port()
            try:
                self._launch(command(chosen), account)
                self._wait(partial(answers, chosen))
            except ServerDiedError as error:
                # between finding a port free and binding it, someone else may have taken it
                if port is not None or not error.port_taken or attempt == PORT_ATTEMPTS - 1:
                    raise
            except BaseException:
                self.kill()
                raise
            else:
                return chosen
        raise AssertionError("unreachable")

    def _launch(self, command: Sequence[str], account: Account | None) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = started(
                command, log, plain_environment(), self.dies_by, directory=self.directory, account=account
            )

    def _wait(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        pause = 0.02
        while not (self.alive and answers()):
            if not self.alive:
                status = self._process.returncode if self._process else None
                raise ServerDiedError(self.name, status, self.log, self.log_tail())
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"{self.name} does not answer after {READY_S:.0f} s. Its log, {self.log}, ends:\n{self.log_tail()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the server has written since its start."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_from)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return "(no log)"

    def stop(self, *steps: tuple[Signals, float]) -> None:
        """Send each signal in turn, waiting its seconds for the process to end; kill it if none helps."""
        process = self._process
        if process is None:
            return
        for signal, patience_s in steps:
            if process.poll() is None:
                process.send_signal(signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience_s)
        self.kill()

    def kill(self) -> None:
        """End the process without ado, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A TCP port on the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def plain_environment() -> dict[str, str]:
    """Our environment without the variables by which PostgreSQL takes settings, and with English messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}
