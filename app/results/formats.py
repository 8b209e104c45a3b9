"""A subset's picks as JSON, NDJSON, CSV or Parquet, a chunk at a time."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.db.selections import OPTIONAL, columns_of, stream, stream_column

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator

    from app.core.db.engine import Sessions
    from app.core.db.selections import Picks

FIELDS: Final = ("rank", "index", "marginal_gain", "epsilon", "conflict", "log_det")


@dataclass(frozen=True, slots=True)
class SubsetFormat:
    """How a subset is written.

    Attributes:
        name: As in `?format=`.
        media_type: As in `Accept`.
        write: Yields the bytes of a job's subset.
    """

    name: str
    media_type: str
    write: Callable[[Sessions, uuid.UUID], Iterator[bytes]]


def _json(sessions: Sessions, job_id: uuid.UUID) -> Iterator[bytes]:
    """One object of arrays: a pass over the chunks for each, so that no array is ever held whole."""
    yield b'{"job_id":' + json.dumps(str(job_id)).encode()
    for column in columns_of(sessions, job_id):
        yield f',"{column}":['.encode()
        separator = ""
        for values in stream_column(sessions, job_id, column):
            yield (separator + json.dumps(values, separators=(",", ":"))[1:-1]).encode()
            separator = ","
        yield b"]"
    yield b"}\n"


def _fields(sessions: Sessions, job_id: uuid.UUID) -> tuple[str, ...]:
    """The columns of a job's subset as rows."""
    there = columns_of(sessions, job_id)
    return (*FIELDS, *(field for column, field in OPTIONAL.items() if column in there))


def _ndjson(sessions: Sessions, job_id: uuid.UUID) -> Iterator[bytes]:
    fields = _fields(sessions, job_id)
    for rows in _ranked(sessions, job_id):
        lines = (json.dumps(dict(zip(fields, row, strict=True)), separators=(",", ":")) for row in rows)
        yield ("\n".join(lines) + "\n").encode()


def _csv(sessions: Sessions, job_id: uuid.UUID) -> Iterator[bytes]:
    yield (",".join(_fields(sessions, job_id)) + "\r\n").encode()
    for rows in _ranked(sessions, job_id):
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        yield text.getvalue().encode()


def _parquet(sessions: Sessions, job_id: uuid.UUID) -> Iterator[bytes]:
    """A row group a chunk; what the writer has put out is handed on after each."""
    sink = _Drain()
    numbers = {name: pa.int64() if name in ("rank", "index") else pa.float64() for name in _fields(sessions, job_id)}
    schema = pa.schema(numbers.items())
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for rows in _ranked(sessions, job_id):
            writer.write_table(pa.table(list(zip(*rows, strict=True)), schema=schema))
            yield sink.take()
    yield sink.take()


class _Drain(io.RawIOBase):
    """A file for the Parquet writer to append to, emptied as it goes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are all that pyarrow passes
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _ranked(sessions: Sessions, job_id: uuid.UUID) -> Iterator[list[tuple[float | None, ...]]]:
    rank = 0
    for picks in stream(sessions, job_id):
        yield list(_rows(picks, rank))
        rank += len(picks.indices)


def _rows(picks: Picks, first_rank: int) -> Iterator[tuple[float | None, ...]]:
    ranks = range(first_rank, first_rank + len(picks.indices))
    return zip(
        ranks,
        picks.indices,
        picks.marginal_gains,
        picks.epsilons,
        picks.conflicts,
        picks.log_det,
        *([] if picks.stability is None else [picks.stability]),
        *(() if picks.weights is None else (picks.weights,)),
        strict=True,
    )


FORMATS: Final = (
    SubsetFormat("json", "application/json", _json),
    SubsetFormat("ndjson", "application/x-ndjson", _ndjson),
    SubsetFormat("csv", "text/csv", _csv),
    SubsetFormat("parquet", "application/vnd.apache.parquet", _parquet),
)
