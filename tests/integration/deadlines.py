"""How soon is soon, on a machine that has other work too."""

from __future__ import annotations

import os


def soon(seconds: float) -> float:
    """What takes at most so many seconds where a core is free takes as many times longer as processes wait for one.

    Args:
        seconds: What is promised of a machine that has nothing else to do.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
