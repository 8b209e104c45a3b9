"""Read and search the excerpts of a job's rows; one request reads a bounded part of them."""

from __future__ import annotations

import io
import json
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from app.http.problems import FieldError, InvalidRequest
from app.results.rows_schemas import TextRow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from app.results.job_files import JobFiles

SCANNED_BYTES = 8 << 20
"""Most bytes that one request reads: a search without a match must not read gigabytes."""

READ_BYTES = 1 << 18


Row = TypeVar("Row", bound=TextRow)


@dataclass(slots=True)
class Found(Generic[Row]):
    """What one request found.

    Attributes:
        items: The rows.
        searched: Rank of the last row looked at; 0 for none.
        next_cursor: Cursor for the next request, or None at the end.
    """

    items: list[Row] = field(default_factory=list)
    searched: int = 0
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client looks for.

    Attributes:
        query: What a row's text must have in it, case and Unicode form aside; empty for any row.
        limit: Rows at most.
        cursor: Where to look on, as an answer before gave it; None from the beginning.
        source: Where a row must be from; None for anywhere.
        first_rank: Rank of the first row that is looked at, from 1.
        last_rank: Rank of the last; None for the end.
        at_least: What figures of a row must reach, by their names.
    """

    query: str
    limit: int
    cursor: str | None
    source: str | None = None
    first_rank: int = 1
    last_rank: int | None = None
    at_least: Mapping[str, float] = field(default_factory=dict)

    def holds_for(self, row: TextRow) -> bool:
        """Whether a row is what is looked for."""
        if row.rank < self.first_rank or (self.source is not None and row.source != self.source):
            return False
        if any(getattr(row, name) < least for name, least in self.at_least.items()):
            return False
        query = _folded(self.query)
        return not query or any(query in _folded(message.content) for message in row.messages)


def _folded(text: str) -> str:
    """As texts are compared where rows of the same text are told: an accent may be a character of its own."""
    return unicodedata.normalize("NFKC", text).casefold()


def rows_of(files: JobFiles, name: str, kind: type[Row], asked: Asked) -> Found[Row]:
    """The next rows of one of a job's files of rows as text, in the file's order.

    Args:
        files: Of the job.
        name: The file's name there.
        kind: What its lines hold.
        asked: What to look for.

    Raises:
        RowsGone: The artifact store no longer has the rows.
        RowsInRepair: They are not what was published, and are being made again.
        RowsDamaged: They could not be made again.
        InvalidRequest: The cursor is not one that this service gave for this job.
        Unavailable: The store does not answer.
    """
    with files.opened(name) as (stream, size):
        start = _place(stream, asked.cursor, size)
        if asked.cursor is None and asked.first_rank > 1:
            start = _at_rank(stream, asked.first_rank, size)
        return _scan(stream, start, size, kind, asked)


def _place(stream: BinaryIO, cursor: str | None, size: int) -> int:
    """The offset in a cursor: the beginning of a line."""
    if cursor is None:
        return 0
    if cursor.isascii() and cursor.isdigit() and 0 < int(cursor) < size:
        stream.seek(int(cursor) - 1)
        if stream.read(1) == b"\n":
            return int(cursor)
    raise InvalidRequest(FieldError(field="cursor", message="is not a next_cursor that this service gave for this job"))


def _at_rank(stream: BinaryIO, rank: int, size: int) -> int:
    """The offset of a line at or a little before that of a rank: the lines are in the order of their ranks."""
    low, high = 0, size
    while high - low > READ_BYTES:
        middle = (low + high) // 2
        stream.seek(middle)
        lines = io.BufferedReader(_Unclosed(stream), READ_BYTES)
        at = middle + len(lines.readline())
        if at < high and json.loads(lines.readline())["rank"] <= rank:
            low = at
        else:
            high = middle
    return low


def _scan(stream: BinaryIO, start: int, size: int, kind: type[Row], asked: Asked) -> Found[Row]:
    stream.seek(start)
    found, at = Found[Row](), start
    for line in io.BufferedReader(_Unclosed(stream), READ_BYTES):
        at += len(line)
        row = kind.model_validate(json.loads(line))
        found.searched = row.rank
        if asked.holds_for(row):
            found.items.append(row)
        if asked.last_rank is not None and row.rank >= asked.last_rank:
            return found
        if len(found.items) >= asked.limit or at - start >= SCANNED_BYTES:
            break
    found.next_cursor = str(at) if at < size else None
    return found


class _Unclosed(io.RawIOBase):
    """A store's stream for `io.BufferedReader` to cut into lines; who opened the stream closes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        read = self._stream.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)
