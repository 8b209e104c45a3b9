"""Where artifacts are kept: the one place here that touches a file system.

A store names its objects by relative paths (`sketches/<key>/shard-00000.safetensors`). Another store, S3 say,
needs the four methods of `ArtifactStore` and nothing else.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class ArtifactStore(Protocol):
    """Whole objects by name. A reader sees an object's old content or its new one, never a part of either."""

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object; durable when this returns."""
        ...

    def write_new(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one. False: there is one, and it stays."""
        ...

    def size(self, name: str) -> int | None:
        """The object's size in bytes; None where there is none."""
        ...


class LocalArtifacts:
    """Artifacts as files under one directory, which hosts may share over a network file system."""

    def __init__(self, root: Path) -> None:
        """Keep artifacts under `root`; it is made when the first one is written."""
        self.root = root

    def read(self, name: str) -> bytes | None:
        """As in `ArtifactStore`."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """As in `ArtifactStore`."""
        path = self._path(name)
        temporary = self._written(path, content)
        temporary.replace(path)
        _sync_directory(path.parent)

    def write_new(self, name: str, content: bytes) -> bool:
        """As in `ArtifactStore`; a hard link is the operation that fails where the name is taken."""
        path = self._path(name)
        temporary = self._written(path, content)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
        return True

    def size(self, name: str) -> int | None:
        """As in `ArtifactStore`."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        path = self.root / name
        if ".." in path.parts or not path.is_relative_to(self.root):
            raise ValueError(f"artifact name {name!r} leaves the store")
        return path

    def _written(self, path: Path, content: bytes) -> Path:
        """The content in a synced file of its own beside its place; no two writers share one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
