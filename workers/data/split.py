"""Cut a stream into the raw bytes of its rows, for the three text formats.

Rows are cut before they are parsed, so that one bad row costs one row, a row's length is limited before anything
is built from it, and picked rows can be copied out byte by byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

BOM = b"\xef\xbb\xbf"
CHUNK_BYTES = 1 << 18
WHITE_SPACE = b" \t\r\n"

CSV_DELIMITERS = (b",", b";", b"\t")
_QUOTED = re.compile(rb'"(?:[^"]|"")*"')
_OUTSIDE_STRING = re.compile(rb'["{}\[\],]')
_INSIDE_STRING = re.compile(rb'["\\]')


def split_lines(stream: BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """Yield the lines of JSON Lines without their line ends; blank lines are no rows.

    Args:
        stream: Decoded bytes.
        max_bytes: The longest row; a longer one is passed over in bounded memory and yields None.
    """
    skip_bom(stream)
    most = max_bytes + len(b"\r\n")
    while line := stream.readline(most):
        if len(line) == most and not line.endswith(b"\n"):
            _skip_line(stream)
            yield None
            continue
        whole = line.rstrip(b"\r\n")
        if len(whole) > max_bytes:
            yield None
        elif whole.strip(WHITE_SPACE):
            yield whole


def skip_bom(stream: BufferedReader) -> None:
    """Pass over a byte order mark."""
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))


def _skip_line(stream: BufferedReader) -> None:
    while (rest := stream.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
        pass


def csv_delimiter(stream: BufferedReader) -> bytes:
    """What separates the cells of a CSV file: a comma, a semicolon or a tab, whichever its header has most of."""
    header = stream.peek(CHUNK_BYTES).removeprefix(BOM).lstrip(b"\r\n").split(b"\n", 1)[0]
    bare = _QUOTED.sub(b"", header)
    return max(CSV_DELIMITERS, key=lambda delimiter: (bare.count(delimiter), delimiter == b","))


def split_csv(stream: BufferedReader, max_bytes: int, delimiter: bytes = b",") -> Iterator[bytes | None]:
    r"""Yield the records of a CSV file (``"`` doubled inside quotes), header first, without line ends.

    A record goes on over line ends inside quotes. Blank lines are no rows.

    Args:
        stream: Decoded bytes.
        max_bytes: The longest record; a longer one is passed over in bounded memory and yields None.
        delimiter: What separates the cells.
    """
    record = bytearray()
    too_long = inside = False
    skip_bom(stream)
    most = max_bytes + len(b"\r\n")
    while line := stream.readline(most):
        inside = ends_inside_quotes(line, inside=inside, delimiter=delimiter)
        too_long = too_long or len(record) + len(line) > most
        if too_long:
            record.clear()
        else:
            record += line
        if line.endswith(b"\n") and not inside:
            yield from _csv_record(record, max_bytes, too_long=too_long)
            record.clear()
            too_long = False
    yield from _csv_record(record, max_bytes, too_long=too_long)


def _csv_record(record: bytearray, max_bytes: int, *, too_long: bool) -> Iterator[bytes | None]:
    whole = bytes(record).rstrip(b"\r\n")
    if too_long or len(whole) > max_bytes:
        yield None
    elif whole:
        yield whole


def ends_inside_quotes(line: bytes, *, inside: bool, delimiter: bytes = b",") -> bool:
    """Whether the record goes on after this line, given whether the line began inside quotes.

    A quote opens a field only at the field's start; elsewhere it is text, as Python's csv reader has it.
    """
    if b'"' not in line:
        return inside
    at = 0
    if not inside and line[:1] == b'"':
        inside, at = True, 1
    while True:
        if inside:
            at = line.find(b'"', at)
            if at < 0:
                return True
            if line[at + 1 : at + 2] == b'"':
                at += 2
            else:
                inside, at = False, at + 1
        else:
            at = line.find(delimiter + b'"', at)
            if at < 0:
                return False
            inside, at = True, at + 2


@dataclass(slots=True)
class _ArrayScanner:
    """Where a scan through a JSON array is, between two chunks."""

    max_bytes: int
    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    too_long: bool = False
    closed: bool = False
    item: bytearray = field(default_factory=bytearray)

    def scan(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the items that end in this chunk; keep the beginning of the next."""
        start = at = 0
        while at < len(chunk) and not self.closed:
            if self.escaped:
                self.escaped, at = False, at + 1
                continue
            match = (_INSIDE_STRING if self.in_string else _OUTSIDE_STRING).search(chunk, at)
            if match is None:
                break
            at = match.end()
            if self._ends_item(match[0]):
                self._keep(chunk[start : at - 1])
                yield from self._finish()
                start = at
        if self.closed:
            self.item[:] = chunk[start:]
        else:
            self._keep(chunk[start:])

    def _ends_item(self, mark: bytes) -> bool:
        if self.in_string:
            self.escaped = mark == b"\\"
            self.in_string = self.escaped
            return False
        if mark == b'"':
            self.in_string = True
        elif mark in b"{[":
            self.depth += 1
        elif mark in b"}]":
            self.depth -= 1
            self.closed = self.depth < 0
            if self.closed and mark == b"}":
                raise _damaged("a '}' without its '{'")
        return self.closed or (mark == b"," and self.depth == 0)

    def _keep(self, part: bytes) -> None:
        if self.too_long:
            return
        self.item += part if self.item else part.lstrip(WHITE_SPACE)
        if len(self.item) > self.max_bytes + CHUNK_BYTES:  # some room for white space after the item
            self.too_long = True
            self.item.clear()

    def _finish(self) -> Iterator[bytes | None]:
        whole = bytes(self.item).strip(WHITE_SPACE)
        if self.too_long or len(whole) > self.max_bytes:
            yield None
        elif whole or not self.closed:
            yield whole
        self.item.clear()
        self.too_long = False


def split_json_array(stream: BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """Yield the items of a JSON array of objects, each as its bytes, in one pass and bounded memory.

    Args:
        stream: Decoded bytes.
        max_bytes: The longest item; a longer one is passed over and yields None.

    Raises:
        DatasetError: ``not_an_array``, or ``damaged`` if the array does not end.
    """
    chunk = _first_chunk(stream)
    if chunk is None:
        return
    if not chunk.startswith(b"["):
        raise DatasetError(
            "not_an_array",
            f"the JSON file begins with {chunk[:1].decode('utf-8', 'replace')!r}: it should hold an array of objects, "
            "or an object on each line",
        )
    scanner = _ArrayScanner(max_bytes)
    chunk = chunk[1:]
    while True:
        yield from scanner.scan(chunk)
        if scanner.closed:
            break
        chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            raise _damaged("no ']' at the end")
    rest = bytes(scanner.item)
    while not rest.strip(WHITE_SPACE):
        rest = stream.read(CHUNK_BYTES)
        if not rest:
            return
    raise _damaged("more text after the array's ']'")


def _first_chunk(stream: BufferedReader) -> bytes | None:
    """The first chunk that is not white space, from its first other byte; None for an empty file."""
    skip_bom(stream)
    chunk = stream.read(CHUNK_BYTES)
    while not chunk.lstrip(WHITE_SPACE):
        chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            return None
    return chunk.lstrip(WHITE_SPACE)


def _damaged(what: str) -> DatasetError:
    return DatasetError("damaged", f"the JSON array is damaged or cut short ({what}): write the file again")
