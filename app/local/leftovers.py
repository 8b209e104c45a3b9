"""Processes that an earlier, killed run has left behind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals


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


def stop_all(processes: list[psutil.Process], gentle: Signals, patience_s: float) -> None:
    """Stop processes with a signal that lets them finish; kill those that are still there after the patience.

    Args:
        processes: What to stop; those that are gone already do not matter.
        gentle: The signal that asks them to stop.
        patience_s: Seconds before SIGKILL.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(gentle)
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=patience_s)
