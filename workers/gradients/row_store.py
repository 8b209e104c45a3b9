"""Values of rows on disk, addressed by row: each is found by the row's digest, whichever dataset brought it.

    store = RowStore(artifacts, "sketches/<key>/", "shard", key)
    pool = PoolRows.of(corpus.digests)
    missing = store.find(pool).missing()
    store.write(corpus.digests[missing], {"values": ...})  # the first dimension is the rows'

A file holds some rows, in no order that means anything. It is one safetensors file that carries the checksum of its
own tensors and is named by a hash of its rows: one atomic write, so that two writers of the same rows leave one valid
file. An index of its rows lies beside it (see `workers.gradients.row_index`); the file is written before its index,
so that what an index lists is there.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.data.stopping import Stopped
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.row_index import NAME_BYTES, Index, find, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from app.core.storage import ArtifactStore
    from workers.gradients.row_index import PoolRows, RowPlaces

LOOSE_INDEXES = 64
"""Files that may be outside of a merged index before the next look-up merges again."""
DIGESTS = "digests"


class FileDamaged(RuntimeError):
    """A file that is needed is not there or not what was written."""

    def __init__(self, name: str) -> None:
        """Name it."""
        self.name = name
        super().__init__(f"file {name} is missing or damaged: compute its rows again")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a file holds.

    Attributes:
        digests: Of its m rows, shape (m, 2), uint64.
        tensors: By name; the first dimension of each is m.
    """

    digests: NDArray[np.uint64]
    tensors: Mapping[str, NDArray[Any]]


class RowStore:
    """The files of one kind below a prefix."""

    def __init__(self, artifacts: ArtifactStore, prefix: str, kind: str, label: str) -> None:
        """Open the files.

        Args:
            artifacts: Where they are kept.
            prefix: What their names begin with, up to a slash.
            kind: What their names go on with: a word.
            label: What a file's file must say that it is of.
        """
        self._artifacts, self._prefix, self._label = artifacts, prefix, {"key": label, "kind": kind}
        self._pattern = re.compile(rf"{re.escape(prefix + kind)}-([0-9a-f]{{{2 * NAME_BYTES}}})\.safetensors")
        self._merged = re.compile(rf"{re.escape(prefix + kind)}s-[0-9]{{9}}-[0-9a-f]+\.index")
        self._kind = kind

    def write(self, digests: NDArray[np.uint64], tensors: Mapping[str, NDArray[Any]]) -> str:
        """Keep values of some rows in a file.

        Args:
            digests: Of the rows, each another one, shape (m, 2), uint64.
            tensors: Values by name; the first dimension is the rows'.

        Returns:
            The file's name.

        Raises:
            ValueError: There is not one value for each row.
        """
        for name, values in tensors.items():
            if len(values) != len(digests):
                raise ValueError(f"a file of {len(digests)} rows has {len(values)} of {name}")
        file = file_name(digests)
        packed = {DIGESTS: np.ascontiguousarray(digests).view(np.uint8), **tensors}
        self._artifacts.write(self._file(file), pack(packed, self._label))
        self._artifacts.write(self._beside(file), _content(Index.of_file(file, digests)))
        return file

    def names(self) -> frozenset[str]:
        """The files that there are, whole or not."""
        found = (self._pattern.fullmatch(stored.name) for stored in self._artifacts.list(self._prefix))
        return frozenset(match[1] for match in found if match is not None)

    def find(self, pool: PoolRows) -> RowPlaces:
        """Where the values of a pool's rows are; of those that aren't anywhere, `missing` has the rows.

        The price is one listing, and a map of each index: hundreds of files' indexes are merged into one on the way.
        """
        listed = sorted(self._artifacts.list(self._prefix), key=lambda stored: (stored.modified, stored.name))
        ordered = [match[1] for stored in listed if (match := self._pattern.fullmatch(stored.name)) is not None]
        there = frozenset(ordered)
        merges = [stored.name for stored in listed if self._merged.fullmatch(stored.name)]
        indexes, seen, superseded = list[Index](), set[str](), list[str]()
        for name in sorted(merges, reverse=True):
            index = _mapped(self._artifacts.view(name))
            if index is None or seen.issuperset(there.intersection(index.names())):
                superseded.append(name)
            else:
                indexes.append(index)
                seen.update(index.names())
        loose = [name for name in ordered if name not in seen]  # the oldest first: of equal rows it counts
        alone = (_mapped(self._artifacts.read(self._beside(name))) for name in loose)
        indexes += [index for index in alone if index is not None]
        if len(loose) > LOOSE_INDEXES:
            indexes = [self._merge(indexes, there)]
        for name in superseded:
            self._artifacts.remove(name)
        return find(indexes, pool, there)

    def drop_damaged(self, places: RowPlaces) -> bool:
        """Delete the files of a pool that are not whole, so that their rows are missing; reads every one of them.

        Returns:
            Whether there were any.
        """
        damaged = [name for name, _ in by_file(places.files, places.file) if self.read(name) is None]
        for name in damaged:
            self.drop(name)
        return bool(damaged)

    def drop(self, file: str) -> None:
        """Delete a file that is not what an index says; the merged indexes too, as one of them may be wrong."""
        for stored in list(self._artifacts.list(self._prefix)):
            if self._merged.fullmatch(stored.name):
                self._artifacts.remove(stored.name)
        self._artifacts.remove(self._beside(file))
        self._artifacts.remove(self._file(file))

    def read(self, file: str) -> Rows | None:
        """A file's rows; None where it is not there, not whole, or another's."""
        content = self._artifacts.read(self._file(file))
        found = None if content is None else unpack(content)
        if found is None or found.metadata != self._label or DIGESTS not in found.tensors:
            return None
        packed = found.tensors.pop(DIGESTS)
        if packed.dtype != np.uint8 or packed.shape[1:] != (16,):
            return None
        digests = np.frombuffer(packed.tobytes(), dtype=np.uint64).reshape(-1, 2)
        whole = file_name(digests) == file and all(len(values) == len(digests) for values in found.tensors.values())
        return Rows(digests, found.tensors) if whole else None

    def required(self, name: str) -> Rows:
        """As `read`.

        Raises:
            FileDamaged: Where that gives none.
        """
        rows = self.read(name)
        if rows is None:
            raise FileDamaged(name)
        return rows

    def tiles(
        self, places: RowPlaces, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], str, Rows]]:
        """The files that a pool's rows are in, one at a time.

        Args:
            places: Of the pool's rows; what is missing is left out.
            should_stop: Asked once a file.

        Yields:
            Places in the pool, ascending; the row of the file for each of them; the file's name and content.

        Raises:
            FileDamaged: A file is missing or damaged, or holds other rows than an index says.
            Stopped: `should_stop` said so.
        """
        group, wanted = places.pool.group, places.pool.digests
        for name, at in by_file(places.files, places.file[group]):
            if should_stop is not None and should_stop():
                raise Stopped
            rows, different = self.required(name), group[at]
            row = places.row[different]
            if len(rows.digests) <= row.max() or not np.array_equal(rows.digests[row], wanted.pairs(different)):
                raise FileDamaged(name)
            yield at, row, name, rows

    def _merge(self, indexes: list[Index], there: frozenset[str]) -> Index:
        index = merged(indexes, there)
        names = hashlib.sha256(index.files.tobytes()).hexdigest()[: 2 * NAME_BYTES]
        name = f"{self._prefix}{self._kind}s-{len(index.files):09d}-{names}.index"
        self._artifacts.write(name, _content(index))
        return index

    def _file(self, file: str) -> str:
        return f"{self._prefix}{self._kind}-{file}.safetensors"

    def _beside(self, file: str) -> str:
        return f"{self._prefix}{self._kind}-{file}.index"


def file_name(digests: NDArray[np.uint64]) -> str:
    """The name of the file of some rows, in hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(digests).tobytes(), digest_size=NAME_BYTES).hexdigest()


def by_file(files: tuple[str, ...], file: NDArray[np.int32]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each file that something is in, with the places of what is, ascending.

    Args:
        files: Names.
        file: Place in `files` of each thing, `NOWHERE` where it is in none.
    """
    order = np.argsort(file, kind="stable")
    bounds = np.searchsorted(file[order], np.arange(len(files) + 1))
    for number, name in enumerate(files):
        at = order[bounds[number] : bounds[number + 1]]
        if len(at):
            yield name, at


def _content(index: Index) -> bytes:
    stream = io.BytesIO()
    index.write(stream)
    return stream.getvalue()


def _mapped(content: bytes | memoryview | None) -> Index | None:
    return None if content is None else Index.mapped(memoryview(content))
