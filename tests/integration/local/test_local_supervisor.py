"""The supervisor over small real processes."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from app.local import supervisor
from app.local.output_log import OutputLog
from app.local.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable


Said = list[tuple[str, str]]


@pytest.fixture
def said() -> Said:
    return []


def child(tmp_path: Path, script: str, name: str = "one", grace_s: float = 5) -> Child:
    command = [sys.executable, "-u", "-c", script]
    return Child(name, command, dict(os.environ), tmp_path / f"{name}.log", grace_s)


def tick_until(supervised: Supervisor, happened: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        supervised.tick(0.05)


def ends(process: psutil.Process, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def supervise(said: Said, *children: Child) -> Supervisor:
    return Supervisor(children, lambda name, line: said.append((name, line)))


def test_output_is_passed_on_line_by_line_and_kept_in_a_log(tmp_path: Path, said: Said) -> None:
    script = (
        "import sys, time; print('first'); sys.stderr.write('sec'); sys.stderr.flush(); time.sleep(0.2);"
        "print('ond'); sys.stdout.buffer.write(b'\\xff broken\\r\\nlast, without an end'); sys.stdout.flush()"
    )
    supervised = supervise(said, child(tmp_path, script))
    tick_until(supervised, lambda: any(name == "serve" for name, _ in said))
    supervised.stop(supervised.children, lambda: False)
    lines = [line for name, line in said if name == "one"]
    assert lines[:4] == ["first", "second", "\ufffd broken", "last, without an end"]
    assert (tmp_path / "one.log").read_text().splitlines()[:4] == lines[:4]


def test_a_child_that_dies_is_started_again_later_and_later(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.4)
    script = "import os, signal, time; print(time.monotonic()); os.kill(os.getpid(), signal.SIGKILL)"
    supervised = supervise(said, child(tmp_path, script))
    tick_until(supervised, lambda: sum(name == "one" for name, _ in said) >= 5)
    supervised.stop(supervised.children, lambda: False)
    starts = [float(line) for name, line in said if name == "one"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    for pause, least in zip(pauses, [0.1, 0.2, 0.4, 0.4], strict=False):
        assert pause >= least
    messages = [line for name, line in said if name == "serve"]
    assert messages[0] == "one ended (killed by SIGKILL); it is started again in 0 s"


def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path, said: Said) -> None:
    missing = Child("one", [str(tmp_path / "missing")], {}, tmp_path / "one.log", 5)
    supervised = supervise(said, missing)
    supervised.tick(0)
    assert said[0][1].startswith("one cannot be started ([Errno 2]")
    assert not missing.due
    supervised.stop(supervised.children, lambda: False)


def test_stopping_asks_first_and_waits(tmp_path: Path, said: Said) -> None:
    script = (
        "import signal, sys, time\n"
        "def leave(*_):\n    time.sleep(0.3); print('left in order'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave); print('up')\nwhile True: time.sleep(0.01)"
    )
    supervised = supervise(said, child(tmp_path, script))
    tick_until(supervised, lambda: ("one", "up") in said)
    supervised.stop(supervised.children, lambda: False)
    assert ("one", "left in order") in said
    assert not any(name == "serve" for name, _ in said)


@pytest.mark.parametrize("hurry", [False, True])
def test_a_child_that_does_not_stop_is_killed_with_its_own_children(tmp_path: Path, said: Said, hurry: bool) -> None:
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(grandchild.pid); time.sleep(600)"
    )
    stubborn = child(tmp_path, script, grace_s=600 if hurry else 0.3)
    supervised = supervise(said, stubborn)
    tick_until(supervised, lambda: bool(said))
    family = [psutil.Process(stubborn.pid), psutil.Process(int(said[0][1]))]
    supervised.stop(supervised.children, lambda: hurry)
    for member in family:
        assert ends(member)


def test_a_child_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from app.local.supervisor import *\n"
        f"one = Child('one', ['sleep', '600'], dict(os.environ), Path({str(tmp_path / 'log')!r}), 5)\n"
        "supervisor = Supervisor([one], print); supervisor.tick(0.1); print(one.pid, flush=True)\n"
        "while True: supervisor.tick(1)"
    )
    outer = psutil.Popen([sys.executable, "-c", script], stdout=-1, text=True)
    inner = psutil.Process(int(outer.stdout.readline()))
    outer.send_signal(signal.SIGKILL)
    outer.communicate()
    assert ends(inner)


def test_a_full_disk_costs_lines_of_the_log_alone(capfd: pytest.CaptureFixture[str]) -> None:
    log = OutputLog(Path("/dev/full"))
    log.write("a line")
    log.close()
    assert capfd.readouterr() == ("", "")
