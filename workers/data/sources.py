"""Where rows come from, as a column of the dataset tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.core.contracts.dataset_request import SOURCE_COLUMNS
from workers.data.conversation import is_unicode
from workers.data.errors import DatasetError
from workers.data.formats import BadRecord, iter_records, read_columns
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

LONGEST_VALUE = 100
MOST_VALUES = 10_000
"""Values that are told apart while counting; rows of any further one count as others."""

MOST_SOURCES = 100
"""Values of a column that may name sources, as far as a registered dataset tells."""
MOST_COLUMNS = 50

_STOP_EVERY_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SourceCount:
    """How many rows a source has.

    Attributes:
        value: The column's value, cut to 100 characters; None for rows of no value or of one beyond the limit.
        candidates: Rows that could be picked.
        picked: Rows that were.
    """

    value: str | None
    candidates: int
    picked: int


def source_column(snapshot: Snapshot, settings: Settings, wanted: str | None) -> str | None:
    """The column that names a row's source: the one wanted, or the first of the usual names; None without one.

    Raises:
        DatasetError: ``unknown_column`` if the one wanted is not there, and those of `read_columns`.
    """
    columns = read_columns(snapshot, settings)
    if wanted is None:
        return next((name for name in SOURCE_COLUMNS if name in columns), None)
    if wanted not in columns:
        known = ", ".join(repr(name) for name in columns[:20])
        raise DatasetError(
            "unknown_column", f'"source_column" is {wanted!r}, but the dataset\'s columns are {known}: use one of those'
        )
    return wanted


class ColumnValues:
    """Counts the rows of each value of the columns that may name sources: few values, and short ones."""

    def __init__(self, columns: Iterable[str]) -> None:
        """Begin with all of some columns."""
        self._counts = {name: Counter[str]() for name in columns}

    def add(self, values: Mapping[str, Any]) -> None:
        """Count a row, and let go of the columns that it rules out."""
        for name, counts in list(self._counts.items()):
            value = values.get(name)
            shown = shown_source(value)
            if shown is None:
                continue
            short = isinstance(value, str | int) and len(str(value)) <= LONGEST_VALUE
            if not short or (shown not in counts and len(counts) == MOST_SOURCES):
                del self._counts[name]
            else:
                counts[shown] += 1

    def found(self) -> dict[str, dict[str, int]]:
        """Rows by value by column, the usual names of a column of sources first."""
        names = sorted((name for name, counts in self._counts.items() if counts), key=_unusual)
        return {name: dict(self._counts[name].most_common()) for name in names[:MOST_COLUMNS]}


def _unusual(column: str) -> bool:
    return column not in SOURCE_COLUMNS


def count_sources(
    snapshot: Snapshot,
    settings: Settings,
    column: str,
    candidates: NDArray[np.bool_],
    picked: NDArray[np.bool_],
    should_stop: Callable[[], bool],
) -> list[SourceCount]:
    """Count rows by source, in one pass over the file and bounded memory.

    Args:
        snapshot: The dataset.
        settings: The limits of reading.
        column: The column that names the source.
        candidates: Whether each row of the file could be picked, shape (rows,).
        picked: Whether it was, shape (rows,).
        should_stop: Asked every 1,000 rows; True gives up.

    Returns:
        The sources, that of the most candidates first.

    Raises:
        Stopped: `should_stop` said so.
    """
    all_of: Counter[str | None] = Counter()
    picked_of: Counter[str | None] = Counter()
    for record in iter_records(snapshot, settings, frozenset({column})):
        if record.row % _STOP_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        if isinstance(record, BadRecord) or not candidates[record.row]:
            continue
        value = shown_source(record.values.get(column))
        if value not in all_of and len(all_of) >= MOST_VALUES:
            value = None
        all_of[value] += 1
        picked_of[value] += bool(picked[record.row])
    return [SourceCount(value, count, picked_of[value]) for value, count in all_of.most_common()]


def shown_source(value: object) -> str | None:
    """A value of a source column as a source's name, cut to 100 characters; None for no value and for no text."""
    if value is None or value == "":
        return None
    text = str(value)[:LONGEST_VALUE].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if is_unicode(text) else None
