"""Talk to the process that chat templates run in (`workers.data.template_process`): one for this process, kept.

It is started by exec and not by a bare fork, so it may start after CUDA was initialised.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.settings import Settings

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
"""The directory that holds the package `workers`."""
READ_BYTES = 1 << 20
START_S = 30.0
END_S = 1.0


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """What a chat template may take; the deployment's settings.

    Attributes:
        seconds: For one row.
        memory_bytes: Of the process that it runs in.
        text_bytes: Of the text of a row.
    """

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    text_bytes: int = 8 << 20


def template_limits(settings: Settings) -> TemplateLimits:
    """The settings' limits of a chat template."""
    return TemplateLimits(settings.template_timeout_s, settings.template_max_bytes, settings.row_max_bytes)


class _Ended(Exception):
    """The process ended before it answered, or had not enough memory to answer."""


class _OutOfMemory(_Ended):
    """The process says that a row takes more memory than it may have."""


class _Killed(Exception):
    """A signal ended the process, as the kernel does when the machine is short of memory: not the template's fault."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number).name


class TemplateServer:
    """The process, started when it is needed and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._memory = 0
        self._template: dict[str, Any] | None = None
        self._received = bytearray()

    def check(self, template: dict[str, Any], limits: TemplateLimits) -> None:
        """Have a template compiled.

        Raises:
            DatasetError: ``chat_template_broken``: it is not valid Jinja, or takes too long or too much.
        """
        with self._lock:
            self._twice(lambda: self._load(template, limits))

    def render(
        self, template: dict[str, Any], conversations: list[dict[str, Any]], limits: TemplateLimits
    ) -> list[dict[str, Any]]:
        """The answer for each conversation, see `workers.data.template_process`.

        Raises:
            DatasetError: ``chat_template_broken``: the template takes too long or too much.
        """
        if not conversations:
            return []

        def rendered() -> list[dict[str, Any]]:
            self._load(template, limits)
            return self._ask({"conversations": conversations}, limits, answers=len(conversations))

        with self._lock:
            return self._twice(rendered)

    def _twice(self, work: Callable[[], Result]) -> Result:
        """Do the work, and once more if a signal ended the process.

        Raises:
            DatasetError: ``template_process_killed``: both times.
        """
        try:
            return work()
        except _Killed as error:
            logger.warning("%s ended the process that renders chat templates: it is started again", error.signal)
        try:
            return work()
        except _Killed as error:
            raise DatasetError(
                "template_process_killed",
                f"the process that renders the model's chat template was ended twice by {error.signal}: look for "
                "memory kills on the worker's machine, then submit again",
            ) from None

    def _load(self, template: dict[str, Any], limits: TemplateLimits) -> None:
        if self._process is None or self._process.poll() is not None or self._memory != limits.memory_bytes:
            self._end()
            self._process = _started(limits.memory_bytes)
            self._memory = limits.memory_bytes
            self._ask({}, TemplateLimits(START_S, limits.memory_bytes))
        if template == self._template:
            return
        [answer] = self._ask({"template": template}, limits)
        if "syntax" in answer:
            raise DatasetError(
                "chat_template_broken",
                f"the model's chat template is not valid Jinja ({answer['syntax']}): correct the model's files",
            )
        self._template = template

    def _ask(self, request: dict[str, Any], limits: TemplateLimits, answers: int = 1) -> list[dict[str, Any]]:
        """Ask, with the limit of time for each answer."""
        found: list[dict[str, Any]] = []
        try:
            self._send({**request, "seconds": limits.seconds})
            found.extend(self._receive(limits.seconds) for _ in range(answers))
        except TimeoutError:
            self._end()
            raise DatasetError(
                "chat_template_broken",
                f"the model's chat template took more than {limits.seconds:g} s for one row: correct the model's "
                "files, or raise SPICE_TEMPLATE_TIMEOUT_S",
            ) from None
        except (_Ended, BrokenPipeError) as error:
            killed_by = self._signal()
            self._end()
            if killed_by is not None and not isinstance(error, _OutOfMemory):
                raise _Killed(killed_by) from None
            raise DatasetError(
                "chat_template_broken",
                f"the model's chat template takes more than {limits.memory_bytes:,} bytes of memory for one row: "
                "correct the model's files, or raise SPICE_TEMPLATE_MAX_BYTES",
            ) from None
        return found

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise _Ended
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next answer; TimeoutError if it is late, _Ended if there is no memory or no process for it."""
        if self._process is None or self._process.stdout is None:
            raise _Ended
        out, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        end = self._received.find(b"\n")
        while end < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(out, READ_BYTES)
            if not chunk:
                raise _Ended
            found = chunk.find(b"\n")
            end = -1 if found < 0 else len(self._received) + found
            self._received += chunk
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        answer: dict[str, Any] = json.loads(line)
        if "memory" in answer:
            raise _OutOfMemory
        return answer

    def _signal(self) -> int | None:
        """The signal that ended the process, if one did."""
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    def _end(self) -> None:
        self._template = None
        self._received.clear()
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            self._process.wait()
            self._process = None


def _started(memory: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "workers.data.template_process", str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={},
        start_new_session=True,  # Ctrl-C and signals to the worker's group are the worker's affair
    )


SERVER = TemplateServer()
"""This process's."""
