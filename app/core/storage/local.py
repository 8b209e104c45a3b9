"""Artifacts as files under one directory, which hosts may share over a network file system.

Through the operating system and not through fsspec, whose local files are neither synced nor put in place in one
step: a power cut could leave half a shard under its final name.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING

import tenacity

from app.core.storage.store import AWAY, Stored, check_name, explained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception(lambda error: getattr(error, "errno", None) in AWAY),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_fixed(0.1),
    reraise=True,
)
"""A single error of a network file system must not undo work that has written several files, as in a bucket."""


class LocalArtifacts:
    """A directory as an `ArtifactStore`, whose methods are described there."""

    def __init__(self, root: Path) -> None:
        """Keep artifacts under `root`; it is made when the first one is written."""
        self.root = root
        self.place = str(root)

    def path(self, name: str) -> Path:
        """The file that holds an object, if there is one."""
        check_name(name)
        return self.root / name

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        path = self.path(name)
        with self._explaining("read", name):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def view(self, name: str) -> memoryview | None:
        """The object's file, mapped."""
        path = self.path(name)
        with self._explaining("read", name):
            try:
                with path.open("rb") as stream:
                    empty = os.fstat(stream.fileno()).st_size == 0
                    return memoryview(b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            except FileNotFoundError:
                return None

    def open(self, name: str) -> BinaryIO:
        """The object's file."""
        path = self.path(name)
        with self._explaining("read", name):
            return path.open("rb")

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object; durable when this returns."""
        path = self.path(name)
        with self._explaining("write", name):
            temporary = _again(_written, path, content)
            temporary.replace(path)
            _sync_directory(path.parent)

    def write_new(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; a hard link is the operation that fails where the name is taken."""
        path = self.path(name)
        with self._explaining("write", name):
            temporary = _again(_written, path, content)
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync_directory(path.parent)
        return True

    def put(self, name: str, source: Path) -> None:
        """Move a file into its place; copied first where that is on another file system."""
        path = self.path(name)
        with self._explaining("write", name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.replace(path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copied(source, path).replace(path)
            _sync_directory(path.parent)

    def stat(self, name: str) -> Stored | None:
        """What is known of an object; None where there is none."""
        path = self.path(name)
        with self._explaining("read", name):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return Stored(name, status.st_size, status.st_mtime)

    def list(self, prefix: str) -> Iterator[Stored]:
        """The files below a directory; what vanishes meanwhile is left out."""
        check_name(prefix)
        with self._explaining("list", prefix):
            for directory, _, files in os.walk(self.root / prefix, onerror=_unless_missing):
                for file in files:
                    path = self.root.joinpath(directory, file)
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()
                        yield Stored(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def remove(self, name: str) -> None:
        """Delete an object, if there is one."""
        path = self.path(name)
        with self._explaining("delete", name):
            path.unlink(missing_ok=True)

    def remove_all(self, prefix: str) -> None:
        """Delete a directory; a file that is written into it meanwhile may stay."""
        path = self.path(prefix)
        with self._explaining("delete", prefix):
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    @contextlib.contextmanager
    def _explaining(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explained(self.place, action, name, error) from error


def _unless_missing(error: OSError) -> None:
    """Raise the error of a directory that can't be read; a walk would show it as empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _written(path: Path, content: bytes) -> Path:
    """The content in a synced file of its own beside its place; no two writers share one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _copied(source: Path, path: Path) -> Path:
    temporary = _beside(path)
    try:
        with source.open("rb") as read, temporary.open("xb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
