"""One service to a data directory."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from app.local.process import LocalServerError

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
        self._file: int | None = None

    def acquire(self) -> Self:
        """Take the lock, unless this object holds it.

        Raises:
            DataDirInUseError: A living process holds it.
        """
        if self._file is not None:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        file = os.open(self.directory / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(file, 32, 0).decode().strip() or "unknown"
            os.close(file)
            raise DataDirInUseError(self.directory, pid) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return self

    def release(self) -> None:
        """Let go of the lock, if held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
