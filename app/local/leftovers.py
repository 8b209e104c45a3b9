"""Processes that an earlier, killed run has left behind."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals

MARK = "SPICE_SERVE_DATA_DIR"


def running_in(directory: Path, program: str) -> list[psutil.Process]:
    """The processes of `program` whose working directory is `directory`.

    PostgreSQL and Valkey both work inside their data directory, so this tells our servers from everyone
    else's, and from a process that has merely been given the number that an old pid file holds.
    """
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == program and process.info["cwd"] == str(directory)
    ]


def marked(directory: Path) -> list[psutil.Process]:
    """The processes whose environment says that they serve the data in `directory`.

    Children are given `MARK` and hand it on to theirs, so this finds the whole family, and nobody who has merely
    been given an old process's number.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(directory) and process.pid != os.getpid():
                found.append(process)
    return found


def stop_all(processes: list[psutil.Process], gentle: Signals, patience_s: float) -> None:
    """Stop servers with a signal that lets them finish; kill what is still there after the patience.

    The signal goes to the heads of the families alone: a PostgreSQL server ends its own children, in order.

    Args:
        processes: What to stop; those that are gone already do not matter.
        gentle: The signal that asks them to stop.
        patience_s: Seconds before SIGKILL.
    """
    family = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in family:
                process.send_signal(gentle)
    if not _ended(processes, patience_s):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _ended(processes, patience_s)


def _ended(processes: list[psutil.Process], patience_s: float) -> bool:
    """Wait for processes to end. A zombie has: in a container, nobody may be there to collect it."""
    deadline = time.monotonic() + patience_s
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
