"""Checksums of a published file, kept beside it, so that what is damaged is never served as good.

A file has a checksum for each MiB: a range is checked without the rest, and a stream before each piece is sent.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

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
        pieces = [hashlib.sha256(piece).hexdigest() for piece in iter(lambda: stream.read(PIECE_BYTES), b"")]
    sums = Checksums(size=file.stat().st_size, piece_bytes=PIECE_BYTES, sha256=pieces)
    artifacts.write(_sums_name(name), sums.model_dump_json().encode())
    artifacts.put(name, file)


def checked(artifacts: ArtifactStore, name: str, size: int, first: int, last: int) -> Iterator[bytes]:
    """The bytes of a published file from `first` to `last`, both included, each piece checked before it is given.

    A file that was published without checksums is given as it is.

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
    sums = _sums(artifacts, name)
    if sums is not None and sums.size != size:
        raise Damaged(
            f"{name} has {size} bytes in the artifact store {artifacts.place}, and {sums.size} were published"
        )
    piece_bytes = PIECE_BYTES if sums is None else sums.piece_bytes
    with artifacts.open(name) as stream:
        for number in range(first // piece_bytes, last // piece_bytes + 1):
            start = number * piece_bytes
            piece = _read(stream, start, min(piece_bytes, size - start))
            if sums is not None and hashlib.sha256(piece).hexdigest() != sums.sha256[number]:
                raise Damaged(
                    f"{name} in the artifact store {artifacts.place} is damaged between its bytes {start} and "
                    f"{start + piece_bytes}"
                )
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


def _sums_name(name: str) -> str:
    directory, _, file = name.rpartition("/")
    return f"{directory}/checksums.{file}"
