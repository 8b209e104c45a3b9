"""Read a snapshot's rows one after the other, whatever it is written in."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workers.data.conversation import is_unicode
from workers.data.decode import decoded_file, open_decoded
from workers.data.errors import DatasetError
from workers.data.json_rows import is_turns, split_json
from workers.data.rejection import Reason
from workers.data.split import csv_delimiter, ends_inside_quotes, split_csv, split_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

MOST_COLUMNS = 1000
LONGEST_COLUMN_NAME = 1000
TURNS = "messages"
"""The column of a row that is a list of turns and not an object."""
_BACKSLASH_QUOTE = re.compile(rb'\\"[^,;\t\r\n"]')
FOOTER_BYTES = 4096  # that a column's pages and dictionaries may take besides its values
BATCH_ROWS = 64  # of Parquet: few, because a dictionary-encoded row may be as long as a row is allowed to be


@dataclass(frozen=True, slots=True)
class Record:
    """A row that could be read.

    Attributes:
        row: 0-based number in the file; the header and blank lines are not counted, rows that cannot be read are.
        values: Column name to value, as Python has it.
    """

    row: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A row that could not be read, and why. ``row`` as in `Record`."""

    row: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive bytes of a file.

    Attributes:
        start: The first one.
        end: Beyond the last one.
        sha256: Of them, in hexadecimal digits.
    """

    start: int
    end: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive rows of one file of a dataset.

    Attributes:
        file: Number of the file in the dataset.
        bytes: Size, as a measure of the work.
        start: Where the range begins: a byte of JSON Lines, a row group of Parquet; 0 is the file's beginning.
        end: Where the next range begins; None where the file is one range.
        spans: The bytes of the file that hold the rows, and what tells how to read them; none where all do.
    """

    file: int
    bytes: int
    start: int = 0
    end: int | None = None
    spans: tuple[Span, ...] = ()


class _RowRejected(Exception):
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


def iter_records(
    snapshot: Snapshot,
    settings: Settings,
    columns: Collection[str] | None = None,
    starts: list[int] | None = None,
) -> Iterator[Record | BadRecord]:
    """Yield every row in file order, in bounded memory.

    Args:
        snapshot: From `workers.data.fetch.fetch`.
        settings: ``row_max_bytes``, ``dataset_max_rows`` and the limits of `open_decoded`.
        columns: Columns of a Parquet file that are wanted (default: all); the others are not read. Text formats
            yield all columns regardless.
        starts: Takes the number of the first row of each file as it is reached.

    Raises:
        DatasetError: ``damaged``, ``not_an_array``, ``not_json_lines``, ``bad_header``, ``duplicate_column``,
            ``unreadable_column``, ``too_many_rows`` and those of `open_decoded`.
    """
    yield from _numbered(_of_all_parts(snapshot, settings, columns, [] if starts is None else starts), settings)


def iter_ranges(
    snapshot: Snapshot, settings: Settings, columns: Collection[str] | None, ranges: Sequence[Range], starts: list[int]
) -> Iterator[Record | BadRecord]:
    """Yield the rows of some ranges of a dataset, numbered from 0; otherwise as `iter_records`."""
    yield from _numbered(_of_ranges(snapshot, settings, columns, ranges, starts), settings)


def _of_ranges(
    snapshot: Snapshot, settings: Settings, columns: Collection[str] | None, ranges: Sequence[Range], starts: list[int]
) -> Iterator[dict[str, Any] | Reason]:
    count = 0
    for each in ranges:
        if each.start == 0:
            starts.append(count)
        for parsed in _of_range(parts_of(snapshot)[each.file], settings, columns, each):
            count += 1
            yield parsed


def _of_range(
    part: Snapshot, settings: Settings, columns: Collection[str] | None, wanted: Range
) -> Iterator[dict[str, Any] | Reason]:
    if wanted.end is None:
        return _rows_of(part, settings, columns)
    if part.format == "parquet":
        return _read_parquet(part, settings, columns, range(wanted.start, wanted.end))
    return _read_lines(part, settings, wanted.start, wanted.end)


def _numbered(rows: Iterator[dict[str, Any] | Reason], settings: Settings) -> Iterator[Record | BadRecord]:
    for row, parsed in enumerate(rows):
        check_rows(row + 1, settings)
        yield BadRecord(row, parsed) if isinstance(parsed, Reason) else Record(row, parsed)


def check_rows(rows: int, settings: Settings) -> None:
    """Refuse a dataset of too many rows.

    Raises:
        DatasetError: ``too_many_rows``.
    """
    if rows > settings.dataset_max_rows:
        raise DatasetError(
            "too_many_rows",
            f"the dataset has more than {settings.dataset_max_rows:,} rows: split it, or raise SPICE_DATASET_MAX_ROWS",
        )


def parts_of(snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """The files of a snapshot; it is its own if it is one."""
    return snapshot.parts or (snapshot,)


def _of_all_parts(
    snapshot: Snapshot, settings: Settings, columns: Collection[str] | None, starts: list[int]
) -> Iterator[dict[str, Any] | Reason]:
    count = 0
    for part in parts_of(snapshot):
        starts.append(count)
        for parsed in _rows_of(part, settings, columns):
            count += 1
            yield parsed


def _rows_of(
    snapshot: Snapshot, settings: Settings, columns: Collection[str] | None
) -> Iterator[dict[str, Any] | Reason]:
    read = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv}.get(snapshot.format)
    return read(snapshot, settings) if read else _read_parquet(snapshot, settings, columns)


def read_columns(snapshot: Snapshot, settings: Settings) -> list[str]:
    """Column names in order: of the CSV header, of the Parquet schema, or of all JSON rows.

    At most 1,000, and none that is longer than 1,000 characters or that a database cannot hold as text. The names of a
    file are found once and remembered by its fingerprint.

    Raises:
        DatasetError: As `iter_records`.
    """
    known = columns_known(snapshot)
    if known is None:
        known = storable_columns(name for part in parts_of(snapshot) for name in _all_columns(part, settings))
        remember_columns(snapshot, known)
    return known


def columns_known(snapshot: Snapshot) -> list[str] | None:
    """The columns of a dataset, if this process has found them before."""
    known = _columns_of.get(_identity(snapshot))
    return None if known is None else list(known)


def remember_columns(snapshot: Snapshot, columns: Iterable[str]) -> None:
    """Have `read_columns` find these without reading."""
    while len(_columns_of) >= FILES_REMEMBERED:
        _columns_of.pop(next(iter(_columns_of)))
    _columns_of[_identity(snapshot)] = list(columns)


def first_columns(snapshot: Snapshot, settings: Settings, most_bytes: int) -> list[str]:
    """As `read_columns`, but of JSON rows those of about so many bytes at the beginning of the first file alone."""
    if not in_rows(snapshot):
        return read_columns(snapshot, settings)
    return storable_columns(_all_columns(parts_of(snapshot)[0], settings, most_bytes))


def in_rows(snapshot: Snapshot) -> bool:
    """Whether each row of a dataset names its columns itself, so that all rows have to be read to know them."""
    return snapshot.format in ("json", "jsonl")


def storable_columns(names: Iterable[str]) -> list[str]:
    """Of some names the first that are told, each once."""
    short = (name for name in dict.fromkeys(names) if len(name) <= LONGEST_COLUMN_NAME)
    return list(islice((name for name in short if is_unicode(name) and "\0" not in name), MOST_COLUMNS))


def storable(text: str) -> str:
    """A text as Postgres stores it, which has no NUL character and no half of a surrogate pair."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _identity(snapshot: Snapshot) -> tuple[str, str, str | None]:
    return snapshot.fingerprint, snapshot.format, snapshot.compression


def unread_columns(snapshot: Snapshot, settings: Settings, read: Collection[str]) -> dict[str, int]:
    """Rows that have a value in each column of a Parquet file that is not read, as its footer tells.

    Where the footer does not count nulls, every row counts. Empty for other formats: their rows are read whole.
    """
    if snapshot.format != "parquet":
        return {}
    if snapshot.parts:
        found = Counter[str]()
        for part in snapshot.parts:
            found.update(unread_columns(part, settings, read))
        return dict(found)
    with open_parquet(snapshot, settings) as file:
        metadata, counts = file.metadata, Counter[str]()
        leaves = {file.schema.column(i).path.split(".")[0]: i for i in reversed(range(metadata.num_columns))}
        flat = {file.schema.column(i).path for i in range(metadata.num_columns)}
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            for name in file.schema_arrow.names:
                if name in read or name not in leaves:
                    continue
                statistics = metadata.row_group(group).column(leaves[name]).statistics
                counted = name in flat and statistics is not None and statistics.has_null_count
                counts[name] += rows - statistics.null_count if counted else rows
    return {name: count for name, count in counts.items() if count}


def short_columns(snapshot: Snapshot, settings: Settings, most_bytes: int) -> set[str]:
    """Columns of a Parquet file whose values take at most so many bytes a row on average, as its footer tells.

    Nested columns are not among them. All columns of other formats: their rows are read whole.
    """
    if snapshot.format != "parquet":
        return set(read_columns(snapshot, settings))
    found = set(read_columns(snapshot, settings))
    for part in parts_of(snapshot):
        with open_parquet(part, settings) as file:
            metadata, size = file.metadata, Counter[str]()
            for group in range(metadata.num_row_groups):
                for leaf in range(metadata.num_columns):
                    column = metadata.row_group(group).column(leaf)
                    size[column.path_in_schema] += column.total_uncompressed_size
            allowed = FOOTER_BYTES + most_bytes * metadata.num_rows
            found &= {name for name in file.schema_arrow.names if name in size and size[name] <= allowed}
    return found


_columns_of: dict[tuple[str, str, str | None], list[str]] = {}
FILES_REMEMBERED = 16


def _all_columns(snapshot: Snapshot, settings: Settings, most_bytes: int | None = None) -> list[str]:
    if snapshot.format == "parquet":
        with open_parquet(snapshot, settings) as file:
            return list(file.schema_arrow.names)
    if snapshot.format == "csv":
        with open_decoded(snapshot, settings) as stream:
            delimiter = csv_delimiter(stream)
            header = next(split_csv(stream, settings.row_max_bytes, delimiter), b"")
            return [] if header == b"" else _csv_header(header, delimiter)
    names, size = RowColumns(), 0
    with open_decoded(snapshot, settings) as stream:
        for raw in split_json(stream, settings.row_max_bytes, lines=snapshot.format == "jsonl"):
            row = _parse_json(raw)
            if not isinstance(row, Reason):
                names.add(row)
            size += len(raw or b"")
            if most_bytes is not None and size >= most_bytes:
                break
    return list(names)


class RowColumns(dict[str, None]):
    """The columns that JSON rows name, in the order in which they come; no more once there are too many."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Take the names of a row."""
        if len(self) <= MOST_COLUMNS:
            self.update(dict.fromkeys(row))


def _read_jsonl(snapshot: Snapshot, settings: Settings) -> Iterator[dict[str, Any] | Reason]:
    with open_decoded(snapshot, settings) as stream:
        yield from map(_parse_json, split_json(stream, settings.row_max_bytes, lines=True))


def _read_json(snapshot: Snapshot, settings: Settings) -> Iterator[dict[str, Any] | Reason]:
    with open_decoded(snapshot, settings) as stream:
        yield from map(_parse_json, split_json(stream, settings.row_max_bytes, lines=False))


def _read_lines(snapshot: Snapshot, settings: Settings, start: int, end: int) -> Iterator[dict[str, Any] | Reason]:
    with snapshot.path.open("rb") as file:
        stream: io.BufferedReader[Any] = io.BufferedReader(_Bytes(file, start, end))
        yield from map(_parse_json, split_lines(stream, settings.row_max_bytes))


class _Bytes(io.RawIOBase):
    """The bytes of a file from `start` to before `end`."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        self._file = file
        self._left = end - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._file.read(min(len(view), self._left))
        self._left -= len(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)


def _parse_json(raw: bytes | None) -> dict[str, Any] | Reason:
    value = Reason.ROW_TOO_LONG if raw is None else _json_value(raw)
    if isinstance(value, Reason):
        return value
    if is_turns(value):
        return {TURNS: value}
    return value if isinstance(value, dict) else Reason.INVALID_JSON


def _json_value(raw: bytes) -> Any:  # noqa: ANN401 - any JSON, or the reason why it is none
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    except RecursionError:
        return Reason.NESTED_TOO_DEEP
    except _RowRejected as rejected:
        return rejected.reason
    except ValueError:  # not JSON, or a number of thousands of digits
        return Reason.INVALID_JSON


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RowRejected(Reason.DUPLICATE_KEY)
    return found


def _read_csv(snapshot: Snapshot, settings: Settings) -> Iterator[dict[str, Any] | Reason]:
    # The csv module has a limit of its own (128 KiB a field), one for the whole process; our rows are bounded already.
    csv.field_size_limit(max(csv.field_size_limit(), settings.row_max_bytes))
    with open_decoded(snapshot, settings) as stream:
        delimiter = csv_delimiter(stream)
        records = split_csv(stream, settings.row_max_bytes, delimiter)
        header = next(records, b"")
        if header == b"":
            return
        names = _csv_header(header, delimiter)
        for raw in records:
            cells = _parse_csv(raw, delimiter)
            if isinstance(cells, Reason) or len(cells) != len(names):
                _check_escapes(raw)
                yield cells if isinstance(cells, Reason) else Reason.RAGGED_ROW
            else:
                yield dict(zip(names, cells, strict=True))


def _check_escapes(raw: bytes | None) -> None:
    """See that quotes inside quotes are doubled: by a backslash, other backslashes would be read wrongly.

    Raises:
        DatasetError: ``backslash_quotes``.
    """
    if raw is not None and _BACKSLASH_QUOTE.search(raw):
        raise DatasetError(
            "backslash_quotes",
            'the CSV file has quotes that are escaped by a backslash, as in \\", which cannot be told from text: write '
            'them doubled, as in "" (pandas does by default), or write JSON Lines',
        )


def _csv_header(raw: bytes | None, delimiter: bytes) -> list[str]:
    names = _parse_csv(raw, delimiter)
    if isinstance(names, Reason):
        raise DatasetError(
            "bad_header", f"the CSV header cannot be read ({names}): the first line should name the columns"
        )
    return _check_names(names)


def _parse_csv(raw: bytes | None, delimiter: bytes) -> list[str] | Reason:
    if raw is None:
        return Reason.ROW_TOO_LONG
    if ends_inside_quotes(
        raw, inside=False, delimiter=delimiter
    ):  # a quote never closed has swallowed the rest of the file
        return Reason.RAGGED_ROW
    try:
        rows = list(csv.reader([raw.decode("utf-8")], delimiter=delimiter.decode()))
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    except csv.Error:  # a carriage return alone, outside quotes
        return Reason.RAGGED_ROW
    return rows[0] if rows else Reason.RAGGED_ROW


def _check_names(names: list[str]) -> list[str]:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DatasetError(
            "duplicate_column",
            f"the column name {twice[0]!r} occurs {names.count(twice[0])} times: rename all but one",
        )
    return names


def open_parquet(snapshot: Snapshot, settings: Settings) -> pq.ParquetFile:
    """Open a Parquet snapshot and check what its footer claims; the caller closes it.

    Raises:
        DatasetError: ``damaged``, ``duplicate_column``, ``too_large_decoded``, ``decompression_bomb``.
    """
    path = decoded_file(snapshot, settings)
    try:
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            "damaged", f"the file is not readable as Parquet ({_first_line(error)}): write it again"
        ) from error
    try:
        _check_names(file.schema_arrow.names)
        _check_footer(file.metadata, path.stat().st_size, settings)
    except DatasetError:
        file.close()
        raise
    return file


def _check_footer(metadata: pq.FileMetaData, stored: int, settings: Settings) -> None:
    decoded = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if decoded > settings.dataset_max_decoded_bytes:
        raise DatasetError(
            "too_large_decoded",
            f"the Parquet file holds {decoded:,} bytes uncompressed, the limit is "
            f"{settings.dataset_max_decoded_bytes:,}: split it, or raise SPICE_DATASET_MAX_DECODED_BYTES",
        )
    if decoded > max(settings.row_max_bytes, settings.dataset_max_ratio * stored):
        raise DatasetError(
            "decompression_bomb",
            f"the Parquet file decompresses to more than {settings.dataset_max_ratio} times its {stored:,} bytes: "
            "write it uncompressed, or raise SPICE_DATASET_MAX_RATIO",
        )


def _read_parquet(
    snapshot: Snapshot, settings: Settings, columns: Collection[str] | None, groups: Sequence[int] | None = None
) -> Iterator[dict[str, Any] | Reason]:
    with open_parquet(snapshot, settings) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        size = 0
        try:
            for batch in file.iter_batches(BATCH_ROWS, groups, columns=names, use_threads=False):
                size += sum(_decoded_bytes(column) for column in batch.columns)
                if size > settings.dataset_max_decoded_bytes:
                    raise DatasetError(
                        "too_large_decoded",
                        f"the Parquet file's columns hold more than {settings.dataset_max_decoded_bytes:,} bytes "
                        "when decoded: split it, or raise SPICE_DATASET_MAX_DECODED_BYTES",
                    )
                yield from _batch_rows(batch, names)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                "damaged",
                f"the Parquet file is damaged or of an unsupported kind ({_first_line(error)}): write it again",
            ) from error


def _decoded_bytes(column: pa.Array) -> int:
    """Bytes of the values; a dictionary's entry counts as often as it is used."""
    if not isinstance(column, pa.DictionaryArray) or not _is_text(column.dictionary.type):
        return int(column.nbytes)
    used = pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py()
    return int(used or 0)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _batch_rows(batch: pa.RecordBatch, names: list[str]) -> Iterator[dict[str, Any] | Reason]:
    columns = [_python_values(name, batch.column(i)) for i, name in enumerate(names)]
    if not columns:
        yield from ({} for _ in range(batch.num_rows))
        return
    for values in zip(*columns, strict=True):
        yield Reason.INVALID_UTF8 if _BROKEN in values else dict(zip(names, values, strict=True))


class _Broken:
    """Stands for a text whose bytes are not UTF-8."""


_BROKEN = _Broken()


def _python_values(name: str, column: pa.Array) -> list[Any]:
    try:
        if isinstance(column, pa.DictionaryArray):  # equal values stay one object, however often they are used
            entries = column.dictionary.to_pylist()
            return [None if i is None else entries[i] for i in column.indices.to_pylist()]
        values: list[Any] = column.to_pylist()
        if pa.types.is_nested(column.type):
            values = [_without_nulls(value) for value in values]
    except UnicodeDecodeError:  # Parquet does not check that strings are UTF-8
        return [_python_value(name, cell) for cell in column]
    except (ValueError, OverflowError, pa.ArrowException, ImportError, KeyError) as error:
        raise _unreadable_column(name, column, error) from error
    return values


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - any Python value
    """A struct without its null fields: Parquet has no other way to say that a row lacks a field."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _python_value(name: str, cell: pa.Scalar) -> Any:  # noqa: ANN401 - any Python value
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return _BROKEN
    except (ValueError, OverflowError, pa.ArrowException, ImportError, KeyError) as error:
        raise _unreadable_column(name, cell, error) from error


def _unreadable_column(name: str, values: pa.Array | pa.Scalar, error: Exception) -> DatasetError:
    return DatasetError(
        "unreadable_column",
        f"column {name!r} of type {values.type} has values that cannot be read ({_first_line(error)}): convert "
        "it to text, or drop it",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
