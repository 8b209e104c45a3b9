"""Where the sketch of each row is: an index of row digests that is mapped, not read.

    pool = PoolRows.of(corpus.digests)
    places = find(indexes, pool)
    places.missing()  # rows of the pool whose sketch is nowhere

An index lists rows by their digests, ascending, with the file and the row of the file that each one's sketch is in.
A file has one beside it; many of them are merged into one, so that a look-up opens few files. Ten million rows are
240 MB of index, and a pool of as many costs less than that again.

An index is believed without a checksum: a file carries its rows' digests under its own checksum, and who takes a
sketch out of it compares them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from numpy.typing import NDArray

NAME_BYTES = 16
"""Of a file's name."""
ROW_BYTES = 24
"""Of a row in an index: its digest, its file's number there, its place in the file."""
HEAD_BYTES = 16
ROWS_AT_ONCE = 1 << 20
NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Digests:
    """Row digests in two halves, ascending and each once; shape (u,), uint64."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.high)

    def pairs(self, places: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Some of them as pairs of their halves, shape (m, 2)."""
        return np.stack((self.high[places], self.low[places]), axis=1)

    def part(self, part: slice) -> Digests:
        """Some consecutive ones of them."""
        return Digests(self.high[part], self.low[part])

    def places_of(self, wanted: Digests) -> NDArray[np.int64]:
        """The place of each wanted digest among these, `NOWHERE` where it isn't; shape of `wanted`, int64."""
        if not len(self):
            return np.full(len(wanted), NOWHERE, dtype=np.int64)
        at = np.searchsorted(self.high, wanted.high)
        last = len(self) - 1
        while True:
            inside = np.minimum(at, last)
            same = (at <= last) & (self.high[inside] == wanted.high)
            # Different rows with the same first half come about once in 10^19 pairs; then the next one is looked at.
            passed = same & (self.low[inside] < wanted.low)
            if not passed.any():
                break
            at = at + passed
        found: NDArray[np.int64] = np.where(same & (self.low[inside] == wanted.low), at, NOWHERE).astype(np.int64)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class PoolRows:
    """The rows of a pool, equal ones told as one.

    Attributes:
        digests: Of the u different rows.
        first: Place in the pool of the first row of each digest, shape (u,), int32.
        group: Which of the digests each row of the pool has, shape (n,), int32.
    """

    digests: Digests
    first: NDArray[np.int32]
    group: NDArray[np.int32]

    @classmethod
    def of(cls, digests: NDArray[np.uint64]) -> Self:
        """From the digest of each row, shape (n, 2)."""
        order = _order(digests[:, 0], digests[:, 1])
        high, low = digests[:, 0][order], digests[:, 1][order]
        new = np.ones(len(order), dtype=np.bool_)
        np.logical_or(high[1:] != high[:-1], low[1:] != low[:-1], out=new[1:])
        group = np.empty(len(order), dtype=np.int32)
        group[order] = np.cumsum(new, dtype=np.int32) - 1
        starts = np.flatnonzero(new)
        first = np.minimum.reduceat(order, starts).astype(np.int32) if len(starts) else np.empty(0, dtype=np.int32)
        return cls(Digests(high[new], low[new]), first, group)

    def __len__(self) -> int:
        return len(self.group)

    def places_of(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place in the pool of each wanted row; of equal rows the first wanted has the first of the pool.

        Args:
            wanted: Digests of the rows, shape (k, 2).

        Returns:
            Shape (k,), int64, each place at most once; `NOWHERE` for a row that the pool has not, or not so often.
        """
        groups = self.digests.places_of(Digests(wanted[:, 0], wanted[:, 1]))
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], np.arange(len(self.digests) + 1))
        found, taken = np.full(len(wanted), NOWHERE, dtype=np.int64), Counter[int]()
        for number in np.flatnonzero(groups != NOWHERE).tolist():
            group = int(groups[number])
            at = int(starts[group]) + taken[group]
            if at < starts[group + 1]:
                found[number] = order[at]
                taken[group] += 1
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Which rows are in some files, and where.

    Attributes:
        digests: Of the m rows.
        files: Names of the files, shape (k, 16), uint8.
        file: Number in `files` of each row's file, shape (m,), int32.
        row: Its row there, shape (m,), int32.
    """

    digests: Digests
    files: NDArray[np.uint8]
    file: NDArray[np.int32]
    row: NDArray[np.int32]

    @classmethod
    def of_file(cls, name: str, digests: NDArray[np.uint64]) -> Self:
        """The index of a file by the digests of its rows, each another one, shape (m, 2)."""
        order = _order(digests[:, 0], digests[:, 1])
        return cls(
            Digests(digests[:, 0][order], digests[:, 1][order]),
            np.frombuffer(bytes.fromhex(name), dtype=np.uint8).reshape(1, NAME_BYTES),
            np.zeros(len(order), dtype=np.int32),
            order.astype(np.int32),
        )

    @classmethod
    def mapped(cls, content: memoryview) -> Self | None:
        """What `write` wrote, where it lies; None where that is not whole."""
        if len(content) < HEAD_BYTES:
            return None
        rows, files = (int(count) for count in np.frombuffer(content[:HEAD_BYTES], dtype="<u8"))
        if len(content) != HEAD_BYTES + NAME_BYTES * files + ROW_BYTES * rows:
            return None
        at = HEAD_BYTES + NAME_BYTES * files
        high, low = (np.frombuffer(content, "<u8", rows, at + 8 * rows * half) for half in range(2))
        file, row = (np.frombuffer(content, "<i4", rows, at + 16 * rows + 4 * rows * half) for half in range(2))
        names = np.frombuffer(content, np.uint8, NAME_BYTES * files, HEAD_BYTES).reshape(files, NAME_BYTES)
        return cls(Digests(high, low), names, file, row)

    def write(self, stream: BinaryIO) -> None:
        """Write it as `mapped` takes it: numbers of rows and files, names, then a column after the other."""
        stream.write(np.array([len(self.digests), len(self.files)], dtype="<u8").tobytes())
        stream.write(np.ascontiguousarray(self.files).tobytes())
        columns: tuple[tuple[NDArray[Any], str], ...] = (
            *((half, "<u8") for half in (self.digests.high, self.digests.low)),
            *((place, "<i4") for place in (self.file, self.row)),
        )
        for column, kind in columns:
            parts = (column[start : start + ROWS_AT_ONCE] for start in range(0, len(column), ROWS_AT_ONCE))
            stream.writelines(np.ascontiguousarray(part, dtype=kind).tobytes() for part in parts)

    def names(self) -> list[str]:
        """The files' names, as hexadecimal digits."""
        return [bytes(name).hex() for name in self.files]


@dataclass(frozen=True, slots=True, eq=False)
class RowPlaces:
    """Where the sketch of each different row of a pool is.

    Attributes:
        pool: The pool.
        there: Names of the files that there were.
        files: Names of those that `file` counts.
        file: Place in `files`, `NOWHERE` where there is no sketch, shape (u,), int32.
        row: Row of the file, shape (u,), int32.
    """

    pool: PoolRows
    there: frozenset[str]
    files: tuple[str, ...]
    file: NDArray[np.int32]
    row: NDArray[np.int32]

    def missing(self) -> NDArray[np.int64]:
        """Places in the pool of rows without a sketch, ascending, one of equal rows: the first; int64."""
        found: NDArray[np.int64] = np.sort(self.pool.first[self.file == NOWHERE]).astype(np.int64)
        return found


def find(indexes: Iterable[Index], pool: PoolRows, there: frozenset[str]) -> RowPlaces:
    """Look all rows of a pool up.

    Args:
        indexes: To look into, one after the other; of equal rows the first found counts.
        pool: What is wanted.
        there: Names of the files that there are: an index may still list one that was deleted.
    """
    count = len(pool.digests)
    file, row = np.full(count, NOWHERE, dtype=np.int32), np.zeros(count, dtype=np.int32)
    names: dict[str, int] = {}
    for index in indexes:
        listed = index.names()
        number = np.array(
            [names.setdefault(name, len(names)) if name in there else NOWHERE for name in listed], dtype=np.int32
        )
        for at, entries in _matches(index, pool.digests):
            files = number[index.file[entries]]
            new = (file[at] == NOWHERE) & (files != NOWHERE)
            file[at[new]], row[at[new]] = files[new], index.row[entries[new]]
    return RowPlaces(pool, there, tuple(names), file, row)


def merged(indexes: Sequence[Index], there: frozenset[str]) -> Index:
    """One index instead of several; of equal rows the first counts, and files that are gone are left out."""
    names = sorted({name for index in indexes for name in index.names() if name in there})
    number = {name: place for place, name in enumerate(names)}
    columns: list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32], NDArray[np.int32]]] = []
    for index in indexes:
        file = np.array([number.get(name, NOWHERE) for name in index.names()], dtype=np.int32)[index.file]
        keep = file != NOWHERE
        columns.append((index.digests.high[keep], index.digests.low[keep], file[keep], index.row[keep]))
    high, low, file, row = (np.concatenate([one[column] for one in columns]) for column in range(4))
    del columns
    order = _order(high, low)
    high, low = high[order], low[order]
    once = np.ones(len(order), dtype=np.bool_)
    np.logical_or(high[1:] != high[:-1], low[1:] != low[:-1], out=once[1:])
    kept = order[once]
    packed = np.frombuffer(b"".join(bytes.fromhex(name) for name in names), dtype=np.uint8)
    return Index(Digests(high[once], low[once]), packed.reshape(-1, NAME_BYTES), file[kept], row[kept])


def _matches(index: Index, wanted: Digests) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places among the wanted digests and the entries of an index that they are at, some at a time.

    The shorter of both is looked for in the longer.
    """
    few = len(wanted) <= len(index.digests)
    short, long = (wanted, index.digests) if few else (index.digests, wanted)
    for start in range(0, len(short), ROWS_AT_ONCE):
        at = long.places_of(short.part(slice(start, start + ROWS_AT_ONCE)))
        hit = np.flatnonzero(at != NOWHERE)
        yield (hit + start, at[hit]) if few else (at[hit], hit + start)


def _order(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order of digests; by the first half alone where that tells, which is always but for rows that are equal."""
    order: NDArray[np.int64] = np.argsort(high, kind="stable")
    sorted_high = high[order]
    same = np.flatnonzero(sorted_high[1:] == sorted_high[:-1])
    if len(same) and (low[order[same]] != low[order[same + 1]]).any():
        order = np.lexsort((low, high))
    return order
