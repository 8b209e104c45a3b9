"""What of the cache this process works with: other workers of the machine do not delete it.

A hold is a shared lock on a small file that is named after the held one. The system lets go of it when the process
ends, however it ends. Deleting takes the same lock for itself alone, and deletes the small file too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Holds:
    """The files and directories that a process holds, one of each kind."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def take(self, kind: str, path: Path) -> bool:
        """Hold `path` instead of what was held of this kind, and mark it as used now.

        Returns:
            False if it is not there (any more).
        """
        self.drop(kind)
        descriptor = _locked(_lock_path(path), fcntl.LOCK_SH)
        try:
            os.utime(path)
        except FileNotFoundError:
            os.close(descriptor)
            return False
        except PermissionError:  # another user's file: it is held, but its age does not tell
            pass
        self._descriptors[kind] = descriptor
        return True

    def drop(self, kind: str) -> None:
        """Let go of what is held of a kind."""
        descriptor = self._descriptors.pop(kind, None)
        if descriptor is not None:
            os.close(descriptor)

    def drop_all(self) -> None:
        """Let go of everything."""
        for kind in tuple(self._descriptors):
            self.drop(kind)


@contextlib.contextmanager
def deleting(path: Path) -> Iterator[bool]:
    """Hold a path against all others. True: nobody holds it, and it may be deleted inside the block."""
    lock = _lock_path(path)
    try:
        descriptor = _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _lock_path(path: Path) -> Path:
    """Beside the directory that holds the path: `<cache>/locks/<name>`."""
    return path.parents[1] / "locks" / path.name


def _locked(lock: Path, how: int) -> int:
    """Open and lock a lock file; again if it was deleted between the two."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, how)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
