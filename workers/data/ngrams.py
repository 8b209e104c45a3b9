"""Which rows share a run of n words with another dataset, such as one that models are evaluated on.

Exact: the runs of words of the other dataset are a set, and every run of every row is looked up in it. A row of the
other dataset that has fewer than n words has no run and finds nothing; it is counted.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spice_rows.conversation import parsed
from workers.data.formats import BadRecord, iter_records
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from app.core.settings import Settings
    from workers.data.fetch import Snapshot

ASK_EVERY_ROWS = 256
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class NGrams:
    """The runs of n words of a dataset.

    Attributes:
        n: Words of a run.
        runs: The runs, words joined by a space.
        rows: Rows of the dataset.
        short: Rows without a text of n words.
    """

    n: int
    runs: frozenset[str]
    rows: int
    short: int

    def within(self, value: object) -> bool:
        """Whether any text of a value of JSON has one of the runs."""
        return any(run in self.runs for text in texts(value) for run in _runs(text, self.n))


def read_ngrams(
    snapshot: Snapshot,
    columns: Collection[str] | None,
    n: int,
    settings: Settings,
    should_stop: Callable[[], bool],
) -> NGrams:
    """The runs of n words of a dataset.

    Args:
        snapshot: The dataset.
        columns: Whose texts count; None for those of all columns.
        n: Words of a run.
        settings: The limits of reading.
        should_stop: Asked every 256 rows; True gives up.

    Raises:
        DatasetError: As `iter_records`.
        Stopped: `should_stop` said so.
    """
    found: set[str] = set()
    rows = short = 0
    for record in iter_records(snapshot, settings, columns):
        if record.row % ASK_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        values = {} if isinstance(record, BadRecord) else record.values
        wanted = values if columns is None else {name: values.get(name) for name in columns}
        runs = {run for text in texts(wanted) for run in _runs(text, n)}
        rows, short = rows + 1, short + (not runs)
        found |= runs
    return NGrams(n, frozenset(found), rows, short)


def rows_within(
    snapshot: Snapshot,
    columns: Collection[str],
    ngrams: NGrams,
    settings: Settings,
    should_stop: Callable[[], bool],
) -> NDArray[np.int64]:
    """Numbers of the rows that have one of the runs in a column, ascending.

    Args:
        snapshot: The dataset.
        columns: Whose texts count: those that a row is read from.
        ngrams: The runs.
        settings: The limits of reading.
        should_stop: As for `read_ngrams`.
    """
    found = []
    for record in iter_records(snapshot, settings, columns):
        if record.row % ASK_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        if isinstance(record, BadRecord):
            continue
        if ngrams.within({name: record.values.get(name) for name in columns}):
            found.append(record.row)
    return np.array(found, dtype=np.int64)


def texts(value: object) -> Iterator[str]:
    """All text of a value of JSON, bytes that are text, and what a text that is JSON itself says.

    In messages that stand as JSON in a cell, a line end is a backslash and a letter.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        yield value
        inner = parsed(value)
        if inner is not value:
            yield from texts(inner)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts(one)


def _runs(text: str, n: int) -> Iterator[str]:
    """The runs of n words of a text: letters and digits, whatever their case, Unicode form and what is between them."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return (" ".join(words[start : start + n]) for start in range(len(words) - n + 1))
