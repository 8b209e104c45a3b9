"""Checksums of a published file, kept beside it, so that what is damaged is never served as good.

A file has a checksum for each MiB: a range is checked without the rest, and a stream before each piece is sent.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

from pydantic import BaseModel, ValidationError

from app.core.storage.store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from app.core.storage.store import ArtifactStore

PIECE_BYTES: Final = 1024 * 1024


class Damaged(StorageFailed):
    """The store has other bytes under a name than were published there."""


class Checksums(BaseModel):
    """Of a file: its size in bytes, and the sha256 of each of its pieces, in hex."""

    size: int
    piece_bytes: int
    sha256: list[str]


def put_checked(artifacts: ArtifactStore, name: str, file: Path) -> None:
    """Put a file into the store, its checksums first: whoever sees the file finds them.

    Raises:
        StorageFailed: The store does not take it.
    """
    with file.open("rb") as stream:
        _write_sums(artifacts, name, stream)
    artifacts.put(name, file)


def write_checked(artifacts: ArtifactStore, name: str, content: bytes) -> None:
    """As `put_checked`, of what is in memory."""
    _write_sums(artifacts, name, io.BytesIO(content))
    artifacts.write(name, content)


def read_checked(artifacts: ArtifactStore, name: str) -> bytes | None:
    """All of a published file; None where there is none.

    Raises:
        Damaged: It is not what was published.
        StorageFailed: The store does not answer.
    """
    stored = artifacts.stat(name)
    if stored is None:
        return None
    return b"".join(checked(artifacts, name, stored.size, 0, stored.size - 1))


def _write_sums(artifacts: ArtifactStore, name: str, stream: BinaryIO) -> None:
    artifacts.write(_sums_name(name), _sums_of(stream, PIECE_BYTES).model_dump_json().encode())


def _sums_of(stream: BinaryIO, piece_bytes: int) -> Checksums:
    size, pieces = 0, []
    while piece := _read(stream, size, piece_bytes):
        size += len(piece)
        pieces.append(hashlib.sha256(piece).hexdigest())
    return Checksums(size=size, piece_bytes=piece_bytes, sha256=pieces)


def is_damaged(artifacts: ArtifactStore, name: str) -> bool:
    """Whether a file is there and is not what was published; all of it is read.

    Raises:
        StorageFailed: The store does not answer.
    """
    stored = artifacts.stat(name)
    if stored is None:
        return False
    try:
        for _ in checked(artifacts, name, stored.size, 0, stored.size - 1):
            pass
    except Damaged:
        return True
    return False


def is_as_published(artifacts: ArtifactStore, name: str, file: Path) -> bool:
    """Whether a file has the bytes that were published under a name; True too where their checksums are lost.

    They are lost where they are not those of the stored file, and that is this file byte for byte.

    Raises:
        StorageFailed: The store does not answer.
    """
    try:
        published = _sums(artifacts, name)
    except Damaged:
        return True
    if published is None:
        return True
    with file.open("rb") as stream:
        sums = _sums_of(stream, published.piece_bytes)
    if sums == published:
        return True
    with artifacts.open(name) as stored:
        return sums == _sums_of(stored, published.piece_bytes)


def check_size(artifacts: ArtifactStore, name: str, size: int) -> None:
    """Raise Damaged if a file was published with another size than the one that the store has."""
    _sums_of_size(artifacts, name, size)


def checked(artifacts: ArtifactStore, name: str, size: int, first: int, last: int) -> Iterator[bytes]:
    """The bytes of a published file from `first` to `last`, both included, each piece checked before it is given.

    Args:
        artifacts: The store.
        name: Of the file.
        size: The file's bytes, as the store has them.
        first: From 0.
        last: Below `size`.

    Raises:
        Damaged: The file is not what was published.
        StorageFailed: The store does not answer.
    """
    sums = _sums_of_size(artifacts, name, size)
    piece_bytes = sums.piece_bytes
    with artifacts.open(name) as stream:
        for number in range(first // piece_bytes, last // piece_bytes + 1):
            start = number * piece_bytes
            piece = _read(stream, start, min(piece_bytes, size - start))
            if hashlib.sha256(piece).hexdigest() != sums.sha256[number]:
                raise _damaged_piece(artifacts.place, name, start, piece_bytes)
            yield piece[max(first - start, 0) : last - start + 1]


def _read(stream: BinaryIO, start: int, count: int) -> bytes:
    stream.seek(start)
    found = b""
    while len(found) < count and (more := stream.read(count - len(found))):
        found += more
    return found


def _sums(artifacts: ArtifactStore, name: str) -> Checksums | None:
    content = artifacts.read(_sums_name(name))
    try:
        return None if content is None else Checksums.model_validate_json(content)
    except ValidationError as error:
        raise Damaged(f"the checksums of {name} in the artifact store {artifacts.place} are damaged") from error


def _sums_of_size(artifacts: ArtifactStore, name: str, size: int) -> Checksums:
    sums = _sums(artifacts, name)
    if sums is None:  # they are written before it: the store has lost them
        raise Damaged(f"{name} in the artifact store {artifacts.place} has lost its checksums")
    if sums.size != size:
        raise Damaged(
            f"{name} has {size} bytes in the artifact store {artifacts.place}, and {sums.size} were published"
        )
    return sums


def _sums_name(name: str) -> str:
    directory, _, file = name.rpartition("/")
    return f"{directory}/checksums.{file}"


@contextmanager
def open_checked(artifacts: ArtifactStore, name: str, size: int) -> Iterator[BinaryIO]:
    """A published file as a stream that can seek, each piece checked when it is read.

    Args:
        artifacts: The store.
        name: Of the file.
        size: The file's bytes, as the store has them.

    Raises:
        Damaged: The file is not what was published; a read raises it too.
        StorageFailed: The store does not answer.
    """
    sums = _sums_of_size(artifacts, name, size)
    with artifacts.open(name) as stream:
        yield cast("BinaryIO", _CheckedStream(stream, name, artifacts.place, sums))


class _CheckedStream(io.RawIOBase):
    """Reads whole pieces and gives what is asked for of them."""

    def __init__(self, stream: BinaryIO, name: str, place: str, sums: Checksums) -> None:
        self._stream, self._name, self._place, self._sums = stream, name, place, sums
        self._at = 0
        self._number, self._piece = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._sums.size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what `read` passes
        if self._at >= self._sums.size:
            return 0
        number, start = divmod(self._at, self._sums.piece_bytes)
        if number != self._number:
            self._number, self._piece = number, self._checked(number)
        found = self._piece[start : start + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _checked(self, number: int) -> bytes:
        size = self._sums.piece_bytes
        piece = _read(self._stream, number * size, min(size, self._sums.size - number * size))
        if hashlib.sha256(piece).hexdigest() != self._sums.sha256[number]:
            raise _damaged_piece(self._place, self._name, number * size, size)
        return piece


def _damaged_piece(place: str, name: str, start: int, size: int) -> Damaged:
    return Damaged(f"{name} in the artifact store {place} is damaged between its bytes {start} and {start + size}")
