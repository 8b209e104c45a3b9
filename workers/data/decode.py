"""Undo gzip and zstd while reading, without being flooded by a decompression bomb."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from typing import TYPE_CHECKING

import pyarrow as pa

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

BUFFER_BYTES = 1 << 18


@contextlib.contextmanager
def open_decoded(snapshot: Snapshot, settings: Settings) -> Iterator[io.BufferedReader]:
    """Open a snapshot's decoded bytes as a buffered stream.

    Limits: ``dataset_max_decoded_bytes``, and ``dataset_max_ratio`` decoded bytes per stored byte once more than
    ``row_max_bytes`` are out (a small file cannot do harm, however well it compresses).

    Raises:
        DatasetError: While reading: ``too_large_decoded``, ``decompression_bomb``, ``damaged``.
    """
    with pa.OSFile(str(snapshot.path)) as stored:
        inner = pa.CompressedInputStream(stored, snapshot.compression) if snapshot.compression else stored
        yield io.BufferedReader(_Decoded(inner, snapshot, settings), BUFFER_BYTES)


def decoded_file(snapshot: Snapshot, settings: Settings) -> Path:
    """A file with the decoded bytes, for readers that seek; the snapshot itself if it is not compressed.

    Raises:
        DatasetError: As `open_decoded`.
    """
    if snapshot.compression is None:
        return snapshot.path
    decoded = snapshot.path.with_name(f"{snapshot.path.name}.decoded")
    if not decoded.exists():
        temporary = decoded.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.part")
        try:
            with open_decoded(snapshot, settings) as stream, temporary.open("wb") as file:
                while chunk := stream.read(BUFFER_BYTES):
                    file.write(chunk)
            temporary.replace(decoded)
        finally:
            temporary.unlink(missing_ok=True)
    return decoded


class _Decoded(io.RawIOBase):
    def __init__(self, inner: pa.NativeFile, snapshot: Snapshot, settings: Settings) -> None:
        self._inner = inner
        self._snapshot = snapshot
        self._max_bytes = settings.dataset_max_decoded_bytes
        self._max_ratio = settings.dataset_max_ratio
        self._bomb_bytes = max(settings.row_max_bytes, self._max_ratio * snapshot.bytes)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._inner.read(len(view))
        except OSError as error:
            raise DatasetError(
                "damaged",
                f"the {self._snapshot.compression} data is damaged or cut short after {self._size:,} "
                f"decoded bytes ({error}): write the file again",
            ) from error
        self._size += len(chunk)
        self._check_limits()
        view[: len(chunk)] = chunk
        return len(chunk)

    def _check_limits(self) -> None:
        if self._size > self._max_bytes:
            raise DatasetError(
                "too_large_decoded",
                f"the dataset is larger than {self._max_bytes:,} bytes when decompressed: split it, or raise "
                "SPICE_DATASET_MAX_DECODED_BYTES",
            )
        if self._snapshot.compression and self._size > self._bomb_bytes:
            raise DatasetError(
                "decompression_bomb",
                f"the dataset decompresses to more than {self._max_ratio} times its {self._snapshot.bytes:,} "
                "bytes: store it uncompressed, or raise SPICE_DATASET_MAX_RATIO",
            )
