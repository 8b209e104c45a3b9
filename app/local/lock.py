"""One service to a data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from app.local.errors import LocalServerError

if TYPE_CHECKING:
    from pathlib import Path


class DataDirInUseError(LocalServerError):
    """Another service runs on the data directory."""

    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(
            f"the data directory {directory} is in use by process {pid}: "
            "stop that service, or choose another directory with --data-dir"
        )


class DataDirLock:
    """A lock that the kernel lets go of when its holder dies, however it dies."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; nothing is locked yet."""
        self.directory = directory
        self._lock = FileLock(directory / "service.lock", timeout=0)
        self._holder = directory / "service.pid"

    def acquire(self) -> Self:
        """Take the lock, unless this object holds it.

        Raises:
            DataDirInUseError: A living process holds it.
        """
        if self._lock.is_locked:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            pid = self._holder.read_text().strip() if self._holder.exists() else "unknown"
            raise DataDirInUseError(self.directory, pid) from None
        self._holder.write_text(f"{os.getpid()}\n")
        return self

    def release(self) -> None:
        """Let go of the lock, if held."""
        self._lock.release(force=True)
