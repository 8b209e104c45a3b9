"""Copy the picked rows of a dataset into a file of the same format."""

from __future__ import annotations

import csv
import io
import os
import secrets
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workers.data.decode import open_decoded
from workers.data.errors import DatasetError
from workers.data.formats import Record, iter_records, open_parquet, parts_of, read_columns
from workers.data.json_rows import split_json
from workers.data.split import csv_delimiter, split_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

    Watch = Callable[[int], None]

PARQUET_BATCH_ROWS = 256
PARQUET_GROUP_BYTES = 32 << 20
PARQUET_GROUP_ROWS = 100_000
WATCHED_ROWS = 1024
_LINE_ENDS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def write_rows(
    snapshot: Snapshot,
    rows: NDArray[np.int64],
    destination: Path,
    settings: Settings,
    watch: Watch = lambda _: None,
) -> None:
    """Write picked rows, uncompressed, in file order, in one pass and bounded memory.

    JSON Lines keeps the bytes of each row, JSON those of each object in a new array, CSV those of the header and
    each record, Parquet the schema.

    Args:
        snapshot: The dataset.
        rows: 0-based row numbers as of `workers.data.formats.Record`, any order. A row named twice
            is written once.
        destination: The file; it appears when complete. Its directory exists.
        settings: The limits of reading.
        watch: Called with the rows written so far, once in 1,024 rows read at least; what it raises ends the writing
            and leaves no file.

    Raises:
        ValueError: A row is not in the dataset, or is too long to be read; no file is left.
        DatasetError: As `workers.data.formats.iter_records`.
    """
    wanted = np.unique(np.asarray(rows, dtype=np.int64))
    if len(wanted) and wanted[0] < 0:
        raise ValueError(f"row {wanted[0]} is negative")
    write = {"jsonl": _write_jsonl, "json": _write_json, "csv": _write_csv, "parquet": _write_parquet}[snapshot.format]
    temporary = destination.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("wb") as out:
            write(snapshot, wanted, out, settings, watch)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _write_jsonl(
    snapshot: Snapshot, wanted: NDArray[np.int64], out: BinaryIO, settings: Settings, watch: Watch
) -> None:
    # A row over several lines goes on one: a line end in JSON is white space, those in texts are escaped.
    raws = _picked(_json_rows(snapshot, settings), wanted, watch)
    out.writelines(raw.translate(_LINE_ENDS_TO_SPACES) + b"\n" for raw in raws)


def _json_rows(snapshot: Snapshot, settings: Settings) -> Iterator[bytes | None]:
    for part in parts_of(snapshot):
        with open_decoded(part, settings) as stream:
            yield from split_json(stream, settings.row_max_bytes, lines=snapshot.format == "jsonl")


def _write_json(snapshot: Snapshot, wanted: NDArray[np.int64], out: BinaryIO, settings: Settings, watch: Watch) -> None:
    separator = b"[\n"
    for raw in _picked(_json_rows(snapshot, settings), wanted, watch):
        out.write(separator + raw)
        separator = b",\n"
    out.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _write_csv(snapshot: Snapshot, wanted: NDArray[np.int64], out: BinaryIO, settings: Settings, watch: Watch) -> None:
    headers = [_csv_header_of(part, settings) for part in parts_of(snapshot)]
    if len(set(headers)) > 1:
        _write_csv_of_all_columns(snapshot, wanted, out, settings, watch)
        return
    if headers[0] is not None:
        out.write(headers[0] + b"\n")
    out.writelines(raw + b"\n" for raw in _picked(_csv_rows(snapshot, settings), wanted, watch))


def _csv_header_of(snapshot: Snapshot, settings: Settings) -> bytes | None:
    with open_decoded(snapshot, settings) as stream:
        return next(split_csv(stream, settings.row_max_bytes, csv_delimiter(stream)), None)


def _csv_rows(snapshot: Snapshot, settings: Settings) -> Iterator[bytes | None]:
    for part in parts_of(snapshot):
        with open_decoded(part, settings) as stream:
            yield from islice(split_csv(stream, settings.row_max_bytes, csv_delimiter(stream)), 1, None)


def _write_csv_of_all_columns(
    snapshot: Snapshot, wanted: NDArray[np.int64], out: BinaryIO, settings: Settings, watch: Watch
) -> None:
    """Files whose headers differ go under the names of all of them."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, read_columns(snapshot, settings), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    chosen = set(wanted.tolist())
    for record in iter_records(snapshot, settings):
        if record.row % WATCHED_ROWS == 0:
            watch(record.row)
        if record.row in chosen and isinstance(record, Record):
            writer.writerow(record.values)
    text.detach()


def _picked(raws: Iterator[bytes | None], wanted: NDArray[np.int64], watch: Watch) -> Iterator[bytes]:
    """The wanted rows among all; ``wanted`` is ascending."""
    numbered = enumerate(raws)
    for written, row in enumerate(wanted):
        reading = _watched(numbered, written, watch)
        at, raw = next(((at, raw) for at, raw in reading if at == row), (row, None))
        if raw is None:
            raise ValueError(f"row {at} is not in the dataset, or too long to be read")
        yield raw


def _watched(
    numbered: Iterator[tuple[int, bytes | None]], written: int, watch: Watch
) -> Iterator[tuple[int, bytes | None]]:
    for at, raw in numbered:
        if at % WATCHED_ROWS == 0:
            watch(written)
        yield at, raw


def _write_parquet(
    snapshot: Snapshot, wanted: NDArray[np.int64], out: BinaryIO, settings: Settings, watch: Watch
) -> None:
    schemas, totals = [], []
    for part in parts_of(snapshot):
        with open_parquet(part, settings) as file:
            schemas.append(_without_views(file.schema_arrow))
            totals.append(file.metadata.num_rows)
    if len(wanted) and wanted[-1] >= sum(totals):
        raise ValueError(f"row {wanted[-1]} is not in the dataset, which has {sum(totals)} rows")
    schema = schemas[0] if all(one == schemas[0] for one in schemas) else _common_schema(schemas)
    with pq.ParquetWriter(out, schema, compression="none") as writer:
        start = 0
        for part, total in zip(parts_of(snapshot), totals, strict=True):
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + total)] - start
            start += total
            with open_parquet(part, settings) as file:
                pending: list[pa.RecordBatch] = []
                for batch in _picked_batches(file, here, watch):
                    pending.append(batch)
                    if _is_group(pending):
                        writer.write_table(_as_schema(pending, schema))
                        pending = []
                if pending:
                    writer.write_table(_as_schema(pending, schema))


def _without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with text and bytes of which Arrow can take rows by number; Parquet stores them alike."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    for is_kind, made in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(kind):
            return made(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _common_schema(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise DatasetError(
            "schemas_differ",
            f"the dataset's Parquet files have columns of types that do not go together ({error}): write them alike",
        ) from error


def _as_schema(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(batches)
    if table.schema.equals(schema):
        return table
    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive").cast(schema)


def _is_group(batches: list[pa.RecordBatch]) -> bool:
    size = sum(int(batch.nbytes) for batch in batches)
    rows = sum(int(batch.num_rows) for batch in batches)
    return size >= PARQUET_GROUP_BYTES or rows >= PARQUET_GROUP_ROWS


def _picked_batches(file: pq.ParquetFile, wanted: NDArray[np.int64], watch: Watch) -> Iterator[pa.RecordBatch]:
    """The wanted rows, batch by batch; row groups without one are not read."""
    start, schema = 0, _without_views(file.schema_arrow)
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        in_group = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
        at = start
        if len(in_group):
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=[group], use_threads=False):
                next_at = at + batch.num_rows
                watch(int(np.searchsorted(wanted, at)))
                here = in_group[np.searchsorted(in_group, at) : np.searchsorted(in_group, next_at)]
                if len(here):
                    plain = batch if batch.schema.equals(schema) else batch.cast(schema)
                    yield plain.take(pa.array(here - at))
                at = next_at
        start = end
