"""Child processes that are kept running: output gathered, deaths noticed, restarts spaced out.

One thread does it all. The kernel ties a child to the thread that started it (see `app.local.tether`), so children
must be started by a thread that lives as long as the process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING

from app.local.output_log import OutputLog
from app.local.process import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0  # a child that has run this long has its earlier deaths forgiven
OWN_NAME = "serve"  # under which the supervisor itself speaks


class Child:
    """A program that should run until it is told to stop."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, grace_s: float
    ) -> None:
        """Describe the child; nothing is started.

        Args:
            name: What messages call it.
            command: Program and arguments.
            environment: All of its environment.
            log: File that its output is appended to; rotated.
            grace_s: Seconds that it may take to stop before it is killed.
        """
        self.name = name
        self.grace_s = grace_s
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._start_at = 0.0
        self._log = OutputLog(log)

    @property
    def pid(self) -> int | None:
        """The process id, None when not running."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def due(self) -> bool:
        """Whether the child is down and its pause is over."""
        return self._process is None and time.monotonic() >= self._start_at

    def start(self) -> IO[bytes]:
        """Start it; the pipe carries all that it writes."""
        # What they do is safe to break off at any moment: the database knows how far they were.
        self._process = started(self._command, subprocess.PIPE, self._environment, signal.SIGKILL)
        self._started_at = time.monotonic()
        pipe = self._process.stdout
        if pipe is None:
            raise AssertionError("the pipe was asked for")
        os.set_blocking(pipe.fileno(), False)
        return pipe

    def lines(self, chunk: bytes) -> list[str]:
        """The whole lines that a chunk of output completes, which are also put into the log."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk and self._rest:  # the end of the output
            whole, self._rest = [*whole, self._rest], b""
        lines = [line.decode(errors="replace").rstrip("\r") for line in whole]
        for line in lines:
            self._log.write(line)
        return lines

    def bury(self) -> tuple[int, float]:
        """Take note of its death.

        Returns:
            Exit status (negative: the signal that killed it) and seconds until it is due again.
        """
        if self._process is None:
            raise AssertionError("only what was started can die")
        self.end_group()
        status = self._process.wait()
        if time.monotonic() - self._started_at > SETTLED_S:
            self._pause_s = FIRST_PAUSE_S
        self._process = None
        return status, self.postpone()

    def postpone(self) -> float:
        """Put the next start off, each time twice as long; the seconds until it is due."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._start_at = time.monotonic() + pause_s
        return pause_s

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process is not None:
            self._process.terminate()

    def end_group(self) -> None:
        """Kill whatever it has started, and itself if it still runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the log."""
        self._log.close()


class Supervisor:
    """Keeps children running and passes on what they write."""

    def __init__(self, children: Iterable[Child], say: Callable[[str, str], None]) -> None:
        """Take charge of children; none is started until `tick`.

        Args:
            children: Whom to keep running.
            say: Is told a name and a line, for each line of output and each thing that happens.
        """
        self.children = list(children)
        self._say = say
        self._pipes = selectors.DefaultSelector()

    def tick(self, patience_s: float) -> None:
        """Start what is due, pass on output for up to `patience_s` seconds, take note of deaths."""
        for child in self.children:
            if child.due:
                self._start(child)
        self._pass_on(patience_s)
        for child in self.children:
            if child.pid is not None and not child.running:
                self._pass_on(0)
                status, pause_s = child.bury()
                self._say(OWN_NAME, f"{child.name} ended ({_cause(status)}); it is started again in {pause_s:.0f} s")

    def stop(self, children: Iterable[Child], hurry: Callable[[], bool]) -> None:
        """Ask children to stop, all at once, and wait; kill those that outlast their grace.

        Args:
            children: Whom to stop.
            hurry: Asked repeatedly; True ends all patience.
        """
        stopping = list(children)
        for child in stopping:
            child.ask_to_stop()
        asked_at = time.monotonic()
        for child in stopping:
            while child.running and time.monotonic() - asked_at < child.grace_s and not hurry():
                self._pass_on(0.05)
            if child.running:
                self._say(OWN_NAME, f"{child.name} has not stopped within {child.grace_s:.0f} s and is killed")
            child.end_group()
        self._pass_on(0)
        for child in stopping:
            if child.pid is not None:
                child.bury()
            child.close()

    def _start(self, child: Child) -> None:
        try:
            pipe = child.start()
        except OSError as error:  # no memory, no process number: may pass
            pause_s = child.postpone()
            self._say(OWN_NAME, f"{child.name} cannot be started ({error}); next try in {pause_s:.0f} s")
            return
        self._pipes.register(pipe, selectors.EVENT_READ, child)

    def _pass_on(self, patience_s: float) -> None:
        if not self._pipes.get_map():
            time.sleep(patience_s)
            return
        for key, _ in self._pipes.select(patience_s):
            pipe, child = key.fileobj, key.data
            chunk = os.read(key.fd, 65536)
            for line in child.lines(chunk):
                self._say(child.name, line)
            if not chunk:
                self._pipes.unregister(pipe)
                pipe.close()  # type: ignore[union-attr]


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"
