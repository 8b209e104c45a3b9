"""Undo gzip and zstd while reading, without being flooded by a decompression bomb."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

BUFFER_BYTES = 1 << 18
LOOKED_AT_BYTES = 1 << 16
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before the mark of UTF-16, which is its first half
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_ASCII = frozenset(range(128))
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
LONGEST_RUN = 2
"""Characters beyond ASCII that stand side by side in Latin text; other scripts have whole words of them."""


@contextlib.contextmanager
def open_decoded(snapshot: Snapshot, settings: Settings) -> Iterator[io.BufferedReader[Any]]:
    """Open a snapshot's decoded bytes as a buffered stream.

    Limits: ``dataset_max_decoded_bytes``, and ``dataset_max_ratio`` decoded bytes per stored byte once more than
    ``row_max_bytes`` are out (a small file cannot do harm, however well it compresses).

    Raises:
        DatasetError: While reading: ``too_large_decoded``, ``decompression_bomb``, ``damaged``.
    """
    with pa.OSFile(str(snapshot.path)) as stored:
        inner = pa.CompressedInputStream(stored, snapshot.compression) if snapshot.compression else stored
        stream = io.BufferedReader(_Decoded(inner, snapshot, settings), BUFFER_BYTES)
        recode = None if snapshot.format == "parquet" else _recoding(stream.peek(LOOKED_AT_BYTES)[:LOOKED_AT_BYTES])
        yield stream if recode is None else io.BufferedReader(_Recoded(stream, recode), BUFFER_BYTES)


def is_plain(head: bytes) -> bool:
    """Whether a text that begins like this is read byte by byte as it is stored."""
    return _recoding(head) is None


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


def _beyond_ascii(code_pages: tuple[str, ...]) -> frozenset[int]:
    """Bytes over 127 that stand for the same character in each of some code pages."""
    each = range(128, 256)
    meanings = {byte: {bytes([byte]).decode(page, "replace") for page in code_pages} for byte in each}
    return frozenset(
        byte for byte, found in meanings.items() if len(found) == 1 and "\N{REPLACEMENT CHARACTER}" not in found
    )


LATIN = _beyond_ascii(("cp1250", "cp1252", "cp1254", "cp1257"))


def _as_windows_text(head: bytes) -> bool:
    """Whether a text that begins like this is in one of Windows' code pages for Latin letters, whichever of them.

    Not UTF-8 anywhere, nothing but characters that all of these code pages have in one place (quotes, dashes, the euro,
    letters such as \N{LATIN SMALL LETTER E WITH ACUTE}), and none in runs, as of another script.
    """
    beyond = _BEYOND_ASCII.findall(head)
    return (
        bool(beyond)
        and max(map(len, beyond)) <= LONGEST_RUN
        and LATIN.issuperset(b"".join(beyond))
        and _UTF8_CHARACTER.search(head) is None
    )


def _recoding(head: bytes) -> Callable[[bytes, bool], bytes] | None:
    """What makes UTF-8 with line feeds of a text that begins like this; None if it is that already."""
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if encoding is None and len(head) >= 4 and head.isascii():  # noqa: PLR2004 - two characters of two bytes
        encoding = {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get(
            (head[::2][:2] == b"\0\0", head[1::2][:2] == b"\0\0")
        )
    if encoding is not None:
        decoder = codecs.getincrementaldecoder(encoding)()

        def to_utf8(chunk: bytes, final: bool) -> bytes:
            try:
                return decoder.decode(chunk, final).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise DatasetError(
                    "damaged", f"the file is not the {encoding.upper()} that it begins as ({error})"
                ) from error

        return to_utf8
    if _as_windows_text(head):
        return _from_windows_text
    if b"\r" in head and b"\n" not in head:  # as old Macs ended lines
        return lambda chunk, _: chunk.replace(b"\r", b"\n")
    return None


def _from_windows_text(chunk: bytes, _final: bool) -> bytes:
    strange = sorted(set(chunk) - LATIN - _ASCII)
    if strange:
        raise DatasetError(
            "encoding_unclear",
            f"the file begins as text of Windows, and byte 0x{strange[0]:02X} in it is another letter in each of its "
            "code pages: convert the file, as by iconv -f WINDOWS-1252 -t UTF-8 (1250 for Central European text)",
        )
    return chunk.decode("cp1252").encode()


class _Recoded(io.RawIOBase):
    """A stream in another encoding."""

    def __init__(self, source: io.BufferedReader[Any], recode: Callable[[bytes, bool], bytes]) -> None:
        self._source = source
        self._recode = recode
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        ended = False
        while not self._waiting and not ended:
            chunk = self._source.read(BUFFER_BYTES)
            ended = not chunk
            self._waiting = self._recode(chunk, ended)
        given = self._waiting[: len(view)]
        self._waiting = self._waiting[len(given) :]
        view[: len(given)] = given
        return len(given)


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
