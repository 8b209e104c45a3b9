"""A child process that cannot outlive its parent."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals

PR_SET_PDEATHSIG = 1
# Loaded before any fork; PyDLL keeps the interpreter lock, so nothing else can run between fork and exec.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None


def die_with_parent(signal: Signals) -> Callable[[], None]:
    """A function to run in a child before its program, so that the kernel sends `signal` when the parent dies.

    Even a parent killed with SIGKILL takes its children along. Linux only; elsewhere the leftovers of a killed
    parent are found and stopped at the next start (see `app.local.leftovers`). The kernel watches the *thread*
    that started the child: start children from the main thread.

    Args:
        signal: What the child gets when its parent is gone.

    Returns:
        A function for `subprocess.Popen(preexec_fn=...)`.
    """
    parent = os.getpid()

    def tie() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the kernel was told
            os._exit(1)

    return tie
