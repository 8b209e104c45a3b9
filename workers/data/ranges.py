"""Cut a dataset into ranges that workers read apart: files, row groups of Parquet, lines of JSON Lines."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from workers.data.decode import BUFFER_BYTES, LOOKED_AT_BYTES, is_plain
from workers.data.formats import Range, open_parquet, parts_of
from workers.data.json_rows import is_lines
from workers.data.split import BOM, WHITE_SPACE

if TYPE_CHECKING:
    from typing import BinaryIO

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot


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
        sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)]
    found: list[Range] = []
    start = 0
    for group in range(len(sizes)):
        size = sum(sizes[start : group + 1])
        if size >= range_bytes or group + 1 == len(sizes):
            found.append(Range(number, size, start, group + 1))
            start = group + 1
    return found if len(found) > 1 else [Range(number, part.bytes)]


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
    places = [0, *sorted(cuts - {part.bytes}), part.bytes]
    return [Range(number, end - start, start, end) for start, end in pairwise(places)]


def _line_after(file: BinaryIO, at: int) -> int:
    """Where the first line begins after a byte; a line that begins with a mark, which would be lost, is passed over."""
    file.seek(at)
    while True:
        while (piece := file.readline(LOOKED_AT_BYTES)) and not piece.endswith(b"\n"):
            pass
        start = file.tell()
        if file.read(len(BOM)) != BOM:
            return start
