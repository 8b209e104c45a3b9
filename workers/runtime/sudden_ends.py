"""A worker that was killed can't say so; the next one on its machine does, out of what the dead one had noted.

Each worker keeps a small file in the cache with its process number and its memory, and deletes it when it ends in
order. A file whose process is gone tells of a sudden end, and whether memory is the likely cause.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.core.settings import Settings

logger = logging.getLogger(__name__)

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Of a container, as it sees it: version 2."""
NEARLY = 0.8
"""Share of the limit from which on a sudden end is put down to it: memory is noted now and then, and grows fast."""
FORGOTTEN_S = 7 * 86400.0


def note(settings: Settings) -> None:
    """Write down this process's memory, and the limit that it has."""
    path = _file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps({"pid": os.getpid(), "used": _used(), "limit": _limit(), "kills": _kills()}))
    temporary.replace(path)


def end_in_order(settings: Settings) -> None:
    """Leave nothing to be told."""
    _file(settings).unlink(missing_ok=True)


def tell(settings: Settings) -> list[str]:
    """Log each sudden end of a worker of this machine, once; the messages."""
    directory = _file(settings).parent
    messages = []
    for path in sorted(directory.glob("*.json")):
        if not path.name.startswith(f"{socket.gethostname()}-"):
            if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                path.unlink(missing_ok=True)
            continue
        found = _read(path)
        if found is None or not _is_gone(found["pid"]):
            continue
        path.unlink(missing_ok=True)
        messages.append(_message(found))
        logger.error("%s", messages[-1])
    return messages


def _message(found: dict[str, Any]) -> str:
    used, limit = found["used"], found["limit"]
    message = f"a worker of this machine, process {found['pid']}, was killed: it used {used:,} bytes of memory at last"
    killed = (_kills() or 0) > (found["kills"] or 0)
    if killed or (limit is not None and used >= NEARLY * limit):
        of_limit = "" if limit is None else f", and its limit is {limit:,}"
        return f"{message}{of_limit}: its memory limit is the likely cause; raise it, or lower SPICE_TOKEN_BUDGET"
    return f"{message}; if nobody has ended it, look for memory kills on the machine"


def _file(settings: Settings) -> Path:
    return settings.cache_path / "workers" / f"{socket.gethostname()}-{os.getpid()}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
        return {"pid": int(found["pid"]), "used": int(found["used"]), "limit": found["limit"], "kills": found["kills"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_gone(pid: int) -> bool:
    """Also where a new container has given this process the number of the one before."""
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _used() -> int:
    """Bytes of this process in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit() -> int | None:
    """Bytes that the container may use; None without a limit."""
    try:
        return int((CONTROL_GROUP / "memory.max").read_text())
    except (OSError, ValueError):
        return None


def _kills() -> int | None:
    """Processes of the container that the system has ended for their memory."""
    try:
        lines = (CONTROL_GROUP / "memory.events").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
