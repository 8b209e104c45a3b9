"""What columns and texts say of rows as members of a selection: their source, who must be in, which are equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.data.conversation import to_conversation
from workers.data.errors import DatasetError
from workers.data.formats import BadRecord, iter_records
from workers.data.rejection import Reason
from workers.data.row_facts import normalised_digest
from workers.data.sources import shown_source
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from app.core.settings import Settings
    from spice_rows.conversation import Wanted as Learned
    from spice_rows.shape import Shape
    from workers.data.fetch import Snapshot

NO_SOURCE = -1
_STOP_EVERY_ROWS = 1024
_YES, _NO = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0", ""})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be told of the rows.

    Attributes:
        source: Column that names a row's source, or None.
        include: Column that marks rows, or None.
        exclude: Column that marks rows, or None.
        texts: Whether to tell which rows have the same text.
    """

    source: str | None = None
    include: str | None = None
    exclude: str | None = None
    texts: bool = False

    @property
    def columns(self) -> frozenset[str]:
        """The columns that are read for it."""
        return frozenset(one for one in (self.source, self.include, self.exclude) if one is not None)


@dataclass(frozen=True, slots=True, eq=False)
class RowMarks:
    """What was told of a dataset of n rows; what was not asked for is empty.

    Attributes:
        names: Names of the sources, in the order in which they first appear.
        source: Place in `names` of each row's source, `NO_SOURCE` for a row of none, shape (n,), int64.
        include: Row numbers that the column marks, ascending, int64.
        exclude: Likewise.
        text: Number of the first row with the same normalised text, shape (n,), int64; the row's own for a row that
            holds no conversation.
    """

    names: tuple[str, ...]
    source: NDArray[np.int64]
    include: NDArray[np.int64]
    exclude: NDArray[np.int64]
    text: NDArray[np.int64]


def read_marks(
    snapshot: Snapshot,
    shape: Shape,
    learned: Learned,
    settings: Settings,
    wanted: Wanted,
    should_stop: Callable[[], bool],
) -> RowMarks:
    """Tell what is wanted, in one pass over the file.

    Args:
        snapshot: The dataset.
        shape: How its rows are read.
        learned: What of them is learned: of a pair, which side.
        settings: The limits of reading.
        wanted: What to tell.
        should_stop: Asked every 1,024 rows; True gives up.

    Raises:
        DatasetError: ``not_a_mark`` if a column that marks rows holds something else.
        Stopped: `should_stop` said so.
    """
    names: dict[str, int] = {}
    texts: dict[bytes, int] = {}
    source: list[int] = []
    text: list[int] = []
    marked: dict[str, list[int]] = {"include": [], "exclude": []}
    columns = wanted.columns | (frozenset(shape.columns.values()) if wanted.texts else frozenset())
    for record in iter_records(snapshot, settings, columns):
        if record.row % _STOP_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        values = {} if isinstance(record, BadRecord) else record.values
        if wanted.source is not None:
            name = shown_source(values.get(wanted.source))
            source.append(NO_SOURCE if name is None else names.setdefault(name, len(names)))
        for field, column in (("include", wanted.include), ("exclude", wanted.exclude)):
            if column is not None and _is_marked(values.get(column), record.row, column):
                marked[field].append(record.row)
        if wanted.texts:
            read = Reason.MISSING_VALUE if isinstance(record, BadRecord) else to_conversation(values, shape, learned)
            same = record.row if isinstance(read, Reason) else texts.setdefault(normalised_digest(read), record.row)
            text.append(same)
    return RowMarks(
        names=tuple(names),
        source=np.array(source, dtype=np.int64),
        include=np.array(marked["include"], dtype=np.int64),
        exclude=np.array(marked["exclude"], dtype=np.int64),
        text=np.array(text, dtype=np.int64),
    )


def _is_marked(value: object, row: int, column: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    word = value.strip().casefold() if isinstance(value, str) else None
    if word in _YES or word in _NO:
        return word in _YES
    raise DatasetError(
        "not_a_mark",
        f"column {column!r} marks rows, and row {row} holds {str(value)[:100]!r} there: write true or false",
    )
