"""Read a dataset through once and say what is in it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError
from workers.data.formats import BadRecord, iter_records, read_columns, short_columns
from workers.data.rejection import Reason, enforce_limit
from workers.data.shapes import recognise
from workers.data.sources import LONGEST_VALUE, ColumnValues
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.core.settings import Settings
    from app.core.uris.datasets import Compression, Format
    from spice_rows.shape import ShapeName
    from workers.data.fetch import Snapshot

REPORT_EVERY_ROWS = 1000


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What a registered dataset holds.

    Attributes:
        rows: Rows in the file, those that cannot be read included.
        columns: Column names, in order; of JSON, those of the first rows.
        shape: The shape recognised, or None: a job must then name the columns.
        bytes: Size as stored.
        fingerprint: ``sha256:<hex>`` of the bytes as stored.
        format: How the rows are written.
        compression: What the file is wrapped in, or None.
        sources: Rows by value of each column that may name sources, by column.
        unreadable: 0-based numbers of the rows that cannot be read, by reason.
    """

    rows: int
    columns: tuple[str, ...]
    shape: ShapeName | None
    bytes: int
    fingerprint: str
    format: Format
    compression: Compression | None
    sources: Mapping[str, Mapping[str, int]]
    unreadable: Mapping[Reason, Sequence[int]] = field(default_factory=dict)


def describe(
    snapshot: Snapshot,
    settings: Settings,
    *,
    on_rows: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetReport:
    """Read every row of a snapshot and report on it.

    Args:
        snapshot: From `workers.data.fetch.fetch`.
        settings: The limits of `iter_records`.
        on_rows: Called with the rows read so far, every 1,000 rows.
        should_stop: Asked as often; True gives up.

    Raises:
        DatasetError: ``empty`` without a row, ``no_usable_rows`` if none can be read, and those of `iter_records`.
        Stopped: ``should_stop`` said so.
    """
    columns = read_columns(snapshot, settings)
    shape = _shape_or_none(columns)
    read = frozenset() if shape is None else frozenset(recognise(columns).columns.values())
    short = short_columns(snapshot, settings, LONGEST_VALUE)
    wanted = read | (short & frozenset(columns))
    values = ColumnValues(name for name in columns if name in short - read)
    rows = 0
    unreadable: dict[Reason, array[int]] = {}
    for record in iter_records(snapshot, settings, wanted):
        rows += 1
        if isinstance(record, BadRecord):
            unreadable.setdefault(record.reason, array("q")).append(record.row)
        else:
            values.add(record.values)
        if rows % REPORT_EVERY_ROWS == 0:
            if should_stop is not None and should_stop():
                raise Stopped
            if on_rows is not None:
                on_rows(rows)
    check_not_empty(rows)
    enforce_limit(unreadable, rows, max_rejected_fraction=1.0)
    return DatasetReport(
        rows=rows,
        columns=tuple(columns),
        shape=shape,
        bytes=snapshot.bytes,
        fingerprint=snapshot.fingerprint,
        format=snapshot.format,
        compression=snapshot.compression,
        sources=values.found(),
        unreadable=unreadable,
    )


def check_not_empty(rows: int) -> None:
    """DatasetError ``empty`` if there is no row."""
    if rows == 0:
        raise DatasetError("empty", "the dataset has no rows: check that the right file was written to the end")


def _shape_or_none(columns: list[str]) -> ShapeName | None:
    try:
        return recognise(columns).name
    except DatasetError:
        return None
