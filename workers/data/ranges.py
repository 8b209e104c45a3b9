"""Cut a dataset into ranges that workers read apart: files, row groups of Parquet, lines of JSON Lines."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict

from app.core.uris.datasets import Compression, Format
from workers.data.decode import BUFFER_BYTES, LOOKED_AT_BYTES, is_plain
from workers.data.formats import Range, Span, in_rows, open_parquet, parts_of, unread_columns
from workers.data.json_rows import is_lines
from workers.data.split import BOM, WHITE_SPACE

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import BinaryIO

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

PARQUET_END_BYTES = 8
"""Of a Parquet file: the length of the footer before it, and four letters."""


class CutFile(BaseModel):
    """A file of a dataset, as `workers.data.fetch.Snapshot` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    compression: Compression | None
    bytes: int
    fingerprint: str


class Cut(BaseModel):
    """How a dataset is cut, and what workers that have some ranges of it need to know of the whole.

    Attributes:
        columns: By which its rows are read.
        exact: Whether these are all columns; else each range tells those of its rows.
        unread: Rows with a value in each column of a Parquet file that is not read.
        files: Of the dataset, in order.
        groups: The ranges in the order of the rows, in groups that are read apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[str]
    exact: bool
    unread: dict[str, int]
    files: tuple[CutFile, ...]
    groups: tuple[tuple[Range, ...], ...]

    @classmethod
    def of(
        cls, snapshot: Snapshot, settings: Settings, range_bytes: int, columns: list[str], read: Collection[str]
    ) -> Self:
        """Cut a dataset.

        Args:
            snapshot: From `workers.data.fetch.fetch`.
            settings: The limits of reading.
            range_bytes: As for `ranges_of`.
            columns: By which rows are read.
            read: Those that are read.

        Raises:
            DatasetError: As `ranges_of`.
        """
        return cls(
            columns=columns,
            exact=not in_rows(snapshot),
            unread=unread_columns(snapshot, settings, read),
            files=tuple(
                CutFile(
                    format=part.format, compression=part.compression, bytes=part.bytes, fingerprint=part.fingerprint
                )
                for part in parts_of(snapshot)
            ),
            groups=tuple(tuple(group) for group in ranges_of(snapshot, settings, range_bytes)),
        )


def ranges_of(snapshot: Snapshot, settings: Settings, range_bytes: int) -> list[list[Range]]:
    """All ranges of a dataset in the order of its rows, in groups of about equal size that are read apart.

    Plain JSON Lines and Parquet are cut inside a file; every other file is one range, because only reading tells where
    its rows begin. Two workers with equal `range_bytes` cut a snapshot alike.

    Args:
        snapshot: From `workers.data.fetch.fetch`.
        settings: The limits of reading.
        range_bytes: Size of a group, but for what completes a row, a row group or a file.

    Raises:
        DatasetError: As `open_parquet`, and ``not_json_lines``.
    """
    groups: list[list[Range]] = []
    size = 0
    for number, part in enumerate(parts_of(snapshot)):
        for each in _of_file(number, part, settings, range_bytes):
            if not groups or 2 * (size + each.bytes) > 3 * range_bytes:
                groups.append([])
                size = 0
            groups[-1].append(each)
            size += each.bytes
    return groups


def _of_file(number: int, part: Snapshot, settings: Settings, range_bytes: int) -> list[Range]:
    if part.format == "parquet":
        return _row_groups(number, part, settings, range_bytes)
    if part.format in ("json", "jsonl") and part.compression is None:
        return _lines(number, part, settings, range_bytes)
    return [Range(number, part.bytes)]


def _row_groups(number: int, part: Snapshot, settings: Settings, range_bytes: int) -> list[Range]:
    with open_parquet(part, settings) as file:
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        sizes, places = [group.total_byte_size for group in groups], [_bytes_of(group) for group in groups]
    cuts = [0]
    for group in range(len(sizes)):
        if sum(sizes[cuts[-1] : group + 1]) >= range_bytes or group + 1 == len(sizes):
            cuts.append(group + 1)
    if len(cuts) <= 2:  # noqa: PLR2004 - the beginning and the end
        return [Range(number, part.bytes)]
    return [
        Range(number, sum(sizes[start:end]), start, end, _spans(part, places[start:end]))
        for start, end in pairwise(cuts)
    ]


def _bytes_of(group: Any) -> tuple[int, int]:  # noqa: ANN401 - pyarrow has no types
    """The first byte of a row group of Parquet, and the one beyond its last."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [min(filter(None, (column.dictionary_page_offset, column.data_page_offset))) for column in columns]
    ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    return min(starts), max(ends)


def _spans(part: Snapshot, groups: list[tuple[int, int]]) -> tuple[Span, ...]:
    """The bytes of a Parquet file that some of its row groups are read from; none where it is compressed once more."""
    if part.compression is not None:
        return ()
    with part.path.open("rb") as file:
        file.seek(part.bytes - PARQUET_END_BYTES)
        footer = int.from_bytes(file.read(4), "little") + PARQUET_END_BYTES
        rows = min(start for start, _ in groups), max(end for _, end in groups)
        return _span(file, *rows), _span(file, part.bytes - footer, part.bytes)


def _span(file: BinaryIO, start: int, end: int) -> Span:
    digest, left = hashlib.sha256(), end - start
    file.seek(start)
    while left and (piece := file.read(min(BUFFER_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
    return Span(start, end, digest.hexdigest())


def _lines(number: int, part: Snapshot, settings: Settings, range_bytes: int) -> list[Range]:
    whole = Range(number, part.bytes)
    if part.bytes <= range_bytes or part.bytes > settings.dataset_max_decoded_bytes:
        return [whole]  # a file that is too large is refused where it is read
    with part.path.open("rb") as file:
        head = file.read(BUFFER_BYTES)
        begins = head.removeprefix(BOM).lstrip(WHITE_SPACE)
        if not is_plain(head[:LOOKED_AT_BYTES]) or not begins or not is_lines(begins, lines=part.format == "jsonl"):
            return [whole]
        cuts = {_line_after(file, at) for at in range(range_bytes, part.bytes, range_bytes)}
        places = pairwise([0, *sorted(cuts - {part.bytes}), part.bytes])
        return [Range(number, end - start, start, end, (_span(file, start, end),)) for start, end in places]


def _line_after(file: BinaryIO, at: int) -> int:
    """Where the first line begins after a byte; a line that begins with a mark, which would be lost, is passed over."""
    file.seek(at)
    while True:
        while (piece := file.readline(LOOKED_AT_BYTES)) and not piece.endswith(b"\n"):
            pass
        start = file.tell()
        if file.read(len(BOM)) != BOM:
            return start
