"""Sketches on disk, addressed by row: each is found by what it was made from, whichever dataset brought it.

    store = ShardStore(open_artifacts(settings), key, digests=corpus.digests, sketch_dim=2048, shard_rows=1024)
    for shard in store.missing():
        store.write(shard, engine.sketch([corpus[place] for place in store.wanted(shard)]))
    stored = store.load(scratch=cache_dir)

A key stands for all that a sketch depends on besides its row: model, adapter, settings. A dataset that has grown,
shrunk, been shuffled or edited, and another one with some of the same rows, so find what there is, and lack only what
is new. A shard is the next so many rows of a dataset: one worker computes those that nobody has computed yet.

A job that is killed goes on at the first missing shard, a second job over the same data and model finds nothing
missing, and workers that share the store share the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.core.storage import USED, scored_name, sketches_prefix
from workers.data.stopping import Stopped
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.engine import Sketches
from workers.gradients.features import files_of
from workers.gradients.row_index import PoolRows
from workers.gradients.row_store import FileDamaged, RowStore, by_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.storage import ArtifactStore
    from workers.gradients.config import GradientConfig
    from workers.gradients.row_index import RowPlaces
    from workers.gradients.row_store import Rows

StoredAs = Literal["float32", "float16"]
FEATURE = "feature"

ROWS_VERSION = 1
"""Bumped when rows get other digests for the same tokens and masks."""
IN_MEMORY_BYTES = 1 << 30
"""Matrices up to this size are loaded into memory; larger ones are mapped from a scratch file."""


class ShardDamaged(RuntimeError):
    """Sketches that are needed are not there or not what was written; what was damaged is deleted.

    Attributes:
        shard: The dataset's first shard with a row that lacks its sketch.
    """

    def __init__(self, shard: int) -> None:
        """Name the shard by its number."""
        self.shard = shard
        super().__init__(f"sketches of shard {shard} are missing or damaged: compute them again")


def sketch_key(
    *,
    model_revision: str,
    dtype: str,
    config: GradientConfig,
    stored_as: StoredAs = "float32",
    dataset_digest: str | None = None,
    frame: tuple[int, str | None] | None = None,
    owner: str | None = None,
) -> str:
    """The content address of the sketches of one model with one configuration, 64 hex digits.

    Args:
        model_revision: `ProxyModel.revision`.
        dtype: The model's dtype as set.
        config: What is sketched, and how.
        stored_as: Precision on disk.
        dataset_digest: Of the samples, where a preparation is computed from them: then a row's sketch is the dataset's.
        frame: Longest sample and chat template, where the loss without the prompt is taken: they decide it too.
        owner: Who alone is to find them; None for whoever looks.
    """
    made_from = {
        "rows": ROWS_VERSION,
        "model": model_revision,
        "dtype": dtype,
        "gradients": config.identity(),
        **({} if stored_as == "float32" else {"stored_as": stored_as}),
        **({"dataset": dataset_digest} if config.prepared else {}),
        **({"frame": frame} if config.prompt_effect else {}),
        **({} if owner is None else {"owner": owner}),
    }
    canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class StoredSketches:
    """The shards of a key: n samples, m of which have a finite gradient.

    Attributes:
        values: The sketches that are finite, in the samples' order, (m, sketch_dim), float32; an array in memory, or a
            map of a scratch file that is gone from its directory and freed with the array. The caller's to change.
        finite: Which samples `values` are of, (n,), bool.
        scored: Which samples have a sketch, (n,), bool: those of shards that were left out have none.
        token_losses: Mean loss of a response token, in nats, (n,), float32.
        unprompted: The same without the prompt, NaN where it was not taken, (n,), float32.
        end_losses: Loss of the token that ends the response, NaN where none does, (n,), float32.
    """

    values: NDArray[np.float32]
    finite: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    token_losses: NDArray[np.float32]
    unprompted: NDArray[np.float32]
    end_losses: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the sketches of a key are of, as the engine that made them says it.

    Attributes:
        left_out: Names of what the model's blocks are made of besides and no gradient was taken of.
        weights_stored_as: Format that the model's files hold weights in, such as ``nf4``; None: as plain numbers.
    """

    left_out: tuple[str, ...] = ()
    weights_stored_as: str | None = None


class ShardStore:
    """The sketches of one content key, as a dataset's shards."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        key: str,
        *,
        digests: NDArray[np.uint64],
        sketch_dim: int,
        shard_rows: int,
        stored_as: StoredAs = "float32",
        pool: PoolRows | None = None,
    ) -> None:
        """Look at a dataset's sketches.

        Args:
            artifacts: Where they are kept.
            key: What `sketch_key` gave.
            digests: Of the dataset's samples, shape (n, 2), uint64.
            sketch_dim: Length p of a sketch.
            shard_rows: Samples of a shard.
            stored_as: Precision of the numbers on disk; in float16 each sketch has a scale of its own.
            pool: What `PoolRows.of` makes of the digests, for who has it already.
        """
        if len(digests) < 1 or sketch_dim < 1 or shard_rows < 1:
            raise ValueError("samples, sketch_dim and shard_rows must be positive")
        self.key, self.samples, self.sketch_dim, self.shard_rows = key, len(digests), sketch_dim, shard_rows
        self.stored_as, self._pool = stored_as, pool
        self.shards = -(-self.samples // shard_rows)
        self._artifacts, self._digests, self._prefix = artifacts, digests, sketches_prefix(key)
        self._rows = sketch_files(artifacts, key)
        self._features: dict[str, RowStore] = {}
        self._lacking: dict[int, NDArray[np.int64]] = {}
        self._found: RowPlaces | None = None

    @cached_property
    def pool(self) -> PoolRows:
        """The dataset's rows, equal ones told as one."""
        return PoolRows.of(self._digests) if self._pool is None else self._pool

    def rows(self, shard: int) -> range:
        """The places in the dataset's samples that a shard covers."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.samples))

    def wanted(self, shard: int, feature: str | None = None) -> NDArray[np.int64]:
        """Places of the shard's samples that have no sketch yet, ascending; of equal rows of the dataset the first.

        Args:
            shard: The shard.
            feature: Whatever else is wanted of the samples, by its name, instead of sketches.
        """
        rows = self.rows(shard)
        part = slice(rows.start, rows.stop)
        places = np.arange(rows.start, rows.stop)
        first: NDArray[np.int64] = places[self.pool.first[self.pool.group[part]] == places]
        if not len(first):
            return first
        some = self._digests[first]
        files = self._rows if feature is None else self._files(feature)
        missing = files.find(PoolRows.of(some)).missing()
        wanted: NDArray[np.int64] = first[missing]
        return wanted

    def write(self, shard: int, places: NDArray[np.int64], sketches: Sketches) -> None:
        """Keep the sketches of some of a shard's samples; replaces what was there.

        Args:
            shard: The shard.
            places: Of the samples, as `wanted` gave them, shape (m,).
            sketches: Theirs.

        Raises:
            ValueError: The sketches are not of that shape.
        """
        expected = (len(places), self.sketch_dim)
        if sketches.values.shape != expected:
            raise ValueError(f"shard {shard} lacks {expected}, the sketches are {sketches.values.shape}")
        if not len(places):
            return
        tensors: dict[str, NDArray[Any]] = {
            **self._packed(sketches.values),
            "losses": sketches.losses.astype(np.float32, copy=False),
            "finite": sketches.finite.astype(np.uint8),
            "token_losses": sketches.token_losses.astype(np.float32, copy=False),
            "unprompted": sketches.unprompted.astype(np.float32, copy=False),
            "end_losses": sketches.end_losses.astype(np.float32, copy=False),
        }
        self._rows.write(self._digests[places], tensors)

    def missing(self, *, verify: bool = False) -> list[int]:
        """The shards with rows that have no sketch.

        Args:
            verify: Read every file that has some of the rows (1 GB/s and more from a disk), and delete what is damaged
                first. Without it the price is one listing, and `load` raises where a checksum is wrong.
        """
        self._found = self._places(self._rows, verify=verify)
        missing = self._found.missing()
        shards, starts = np.unique(missing // self.shard_rows, return_index=True)
        ends = [*starts[1:].tolist(), len(missing)]
        parts = (missing[start:end] for start, end in zip(starts.tolist(), ends, strict=False))
        self._lacking = dict(zip(shards.tolist(), parts, strict=True))
        return list(self._lacking)

    def lacking(self, shard: int) -> NDArray[np.int64]:
        """Places of the shard's samples that had no sketch when `missing` last looked, as `wanted` has them."""
        return self._lacking.get(shard, np.empty(0, dtype=np.int64))

    def size(self, shard: int) -> int:
        """How many gradients a shard takes, by the last look at what is missing; at least 1, as a unit of work."""
        return max(1, len(self.lacking(shard)))

    def write_feature(self, feature: str, places: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Keep something else of some samples.

        Args:
            feature: Its name.
            places: Of the samples, as `wanted` gave them, shape (m,).
            values: Theirs, the first dimension m.

        Raises:
            ValueError: There is not one for each sample.
        """
        self._files(feature).write(self._digests[places], {FEATURE: values.astype(np.float32, copy=False)})

    def feature_tiles(
        self, feature: str, should_stop: Callable[[], bool] | None = None, without: Collection[int] = ()
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """What was kept of all samples, a file at a time, in no order: places among the samples, and their values.

        Args:
            feature: Which.
            should_stop: Asked once a file.
            without: Shards that may lack it.

        Raises:
            ShardDamaged: Something is missing or damaged.
            Stopped: `should_stop` said so.
        """
        files = self._files(feature)
        places = files.find(self.pool)
        self._check_missing(places, without)
        try:
            for at, row, _, rows in files.tiles(places, should_stop):
                yield at, rows.tensors[FEATURE][row]
        except FileDamaged as damaged:
            files.drop(damaged.name)
            raise ShardDamaged(0) from damaged

    def missing_features(self, features: Collection[str], *, verify: bool = False) -> list[int]:
        """The shards of which one of some features is still to be made; arguments as for `missing`."""
        found = [self._places(self._files(feature), verify=verify).missing() for feature in features]
        return sorted({shard for missing in found for shard in np.unique(missing // self.shard_rows).tolist()})

    def keep_scored(self, scored: Scored) -> None:
        """Keep what the sketches are of, for every job that uses them."""
        if self.scored() is None:
            about = json.dumps({"left_out": scored.left_out, "weights_stored_as": scored.weights_stored_as})
            self._artifacts.write(scored_name(self.key), pack({}, {"about": about}))

    def scored(self) -> Scored | None:
        """What the sketches are of; None where nothing whole was kept."""
        content = self._artifacts.read(scored_name(self.key))
        found = None if content is None else unpack(content)
        if found is None:
            return None
        about = json.loads(found.metadata["about"])
        return Scored(tuple(about["left_out"]), about["weights_stored_as"])

    def mark_used(self, features: Collection[str] = ()) -> None:
        """Note in the store what the dataset uses now: what was used last is the last to be deleted for space.

        Args:
            features: What it uses besides sketches.
        """
        sketches = self._rows.find(self.pool) if self._found is None else self._found
        found = (sketches, *(self._files(feature).find(self.pool) for feature in features))
        names = {name for places in found for name, _ in by_file(places.files, places.file)}
        content = bytes.fromhex("".join(sorted(names)))
        self._artifacts.write(f"{self._prefix}{USED}{hashlib.sha256(content).hexdigest()[:32]}", content)

    def places(self) -> tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.int32]]:
        """Where each sample's sketch is: names of files, and for each sample its file's place among them and its row.

        The place is `NOWHERE` where it has none.
        """
        places = self._rows.find(self.pool) if self._found is None else self._found
        group = self.pool.group
        return places.files, places.file[group], places.row[group]

    def load(
        self,
        *,
        scratch: Path | None = None,
        in_memory_bytes: int = IN_MEMORY_BYTES,
        without: Collection[int] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> StoredSketches:
        """All sketches that are finite as one matrix, row by row from wherever they are.

        Args:
            scratch: Directory for the file behind a matrix that is too large for memory; needs n p 4 bytes there.
            in_memory_bytes: Largest matrix that is held in memory if there is a scratch directory.
            without: Shards to leave out: samples that `left_out` names count as not scored.
            should_stop: Asked once a file.

        Raises:
            ShardDamaged: A sketch is missing or damaged.
            OSError: The scratch directory has no room.
            Stopped: `should_stop` said so.
        """
        places = self._look(without)
        values = empty_matrix((self.samples, self.sketch_dim), scratch, in_memory_bytes)
        token_losses, unprompted, end_losses = np.full((3, self.samples), np.nan, dtype=np.float32)
        finite, scored = np.zeros((2, self.samples), dtype=np.bool_)
        leave = self.left_out(without)
        try:
            for at, row, name, rows in self._rows.tiles(places, should_stop):
                held = sketches_in(rows, name, self.sketch_dim)
                scored[at] = ~leave[at]
                values[at], finite[at] = held.values[row], held.finite[row] & scored[at]
                token_losses[at] = np.where(scored[at], held.token_losses[row], np.nan)
                unprompted[at] = np.where(scored[at], held.unprompted[row], np.nan)
                end_losses[at] = np.where(scored[at], held.end_losses[row], np.nan)
        except FileDamaged as damaged:
            self._rows.drop(damaged.name)
            self._found = None
            self._look(without)
            raise ShardDamaged(0) from damaged  # it is there again: another worker was quicker
        return StoredSketches(_only(values, finite), finite, scored, token_losses, unprompted, end_losses)

    def left_out(self, without: Collection[int]) -> NDArray[np.bool_]:
        """Which samples are left out with some shards, (n,): equal samples all go with the first of them."""
        shards = self.pool.first[self.pool.group] // self.shard_rows
        return np.isin(shards, np.array(list(without), dtype=np.int64))

    def _look(self, without: Collection[int] = ()) -> RowPlaces:
        """Where all sketches are.

        Raises:
            ShardDamaged: One is nowhere, and its shard is not among those that are left out.
        """
        if self._found is None:
            self._found = self._rows.find(self.pool)
        try:
            self._check_missing(self._found, without)
        except ShardDamaged:
            self._found = None
            raise
        return self._found

    def _check_missing(self, places: RowPlaces, without: Collection[int]) -> None:
        """See that all are there but those of some shards.

        Raises:
            ShardDamaged: One is not.
        """
        shards = places.missing() // self.shard_rows
        unexpected = shards[~np.isin(shards, np.array(list(without), dtype=np.int64))]
        if len(unexpected):
            raise ShardDamaged(int(unexpected[0]))

    def _places(self, files: RowStore, *, verify: bool) -> RowPlaces:
        """Where all samples are in some files; with `verify`, after what is damaged was deleted."""
        places = files.find(self.pool)
        return files.find(self.pool) if verify and files.drop_damaged(places) else places

    def _files(self, feature: str) -> RowStore:
        """The files of a feature."""
        if feature not in self._features:
            self._features[feature] = RowStore(self._artifacts, self._prefix, files_of(feature), self.key)
        return self._features[feature]

    def has(self, shard: int) -> bool:
        """Whether all of a shard's samples have their sketches."""
        return not len(self.wanted(shard))

    @cached_property
    def dataset(self) -> str:
        """The dataset in the names of features: what they are may depend on it."""
        return hashlib.blake2b(np.ascontiguousarray(self._digests).tobytes(), digest_size=16).hexdigest()

    def _packed(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        if self.stored_as == "float32":
            return {"values": values.astype(np.float32, copy=False)}
        scales = np.abs(values).max(axis=1, initial=0.0)
        scales[~np.isfinite(scales) | (scales == 0)] = 1.0
        with np.errstate(over="ignore", invalid="ignore"):  # of a row that is not finite, which is never used
            return {"values": (values / scales[:, None]).astype(np.float16), "scales": scales.astype(np.float32)}


def sketch_files(artifacts: ArtifactStore, key: str) -> RowStore:
    """The files of a content key, of whatever dataset's rows."""
    return RowStore(artifacts, sketches_prefix(key), "shard", key)


def gather(
    store: RowStore,
    places: tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.int32]],
    sketch_dim: int,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Sketches from where `ShardStore.places` said that they are; a file and what is asked for are in memory at a time.

    Args:
        store: The content key's files.
        places: Those of m samples, in any order.
        sketch_dim: Length p of a sketch.
        should_stop: Asked once a file.

    Returns:
        Shape (m, sketch_dim), float32.

    Raises:
        ShardDamaged: A file is missing or damaged.
        Stopped: `should_stop` said so.
    """
    names, file, row = places
    found = np.empty((len(file), sketch_dim), dtype=np.float32)
    for name, at in by_file(names, file):
        if should_stop is not None and should_stop():
            raise Stopped
        try:
            found[at] = sketches_in(store.required(name), name, sketch_dim).values[row[at]]
        except FileDamaged as damaged:
            store.drop(name)
            raise ShardDamaged(0) from damaged
    return found


def sketches_in(rows: Rows, name: str, sketch_dim: int) -> Sketches:
    """The sketches in a file's rows.

    Raises:
        FileDamaged: There are none, or of another length.
    """
    tensors = rows.tensors
    try:
        values = tensors["values"]
        if "scales" in tensors:
            values = values.astype(np.float32) * tensors["scales"][:, None]
        sketches = Sketches(
            values,
            tensors["losses"],
            tensors["finite"].astype(np.bool_),
            tensors["token_losses"],
            tensors["unprompted"],
            tensors["end_losses"],
        )
    except KeyError:
        raise FileDamaged(name) from None
    if values.shape != (len(rows.digests), sketch_dim):
        raise FileDamaged(name)
    return sketches


def _only(values: NDArray[np.float32], keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Some rows of a matrix, in the memory that all were in."""
    if keep.all():
        return values
    places = np.flatnonzero(keep)
    for start in range(0, len(places), 1024):
        part = places[start : start + 1024]
        values[start : start + len(part)] = values[part]
    return values[: len(places)]


def empty_matrix(
    shape: tuple[int, int], scratch: Path | None, in_memory_bytes: int = IN_MEMORY_BYTES
) -> NDArray[np.float32]:
    """A matrix for as many sketches, in memory if it is small, else a map of a file that goes with it.

    Args:
        shape: (n, p).
        scratch: Directory for that file; None: in memory, whatever its size.
        in_memory_bytes: Largest matrix that is held in memory if there is a scratch directory.

    Raises:
        OSError: The scratch directory has no room.
    """
    if scratch is None or shape[0] * shape[1] * np.dtype(np.float32).itemsize <= in_memory_bytes:
        return np.empty(shape, dtype=np.float32)
    return _unnamed_map(scratch, shape)


def _unnamed_map(directory: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A writable map of a new file that has no name any more: its space is freed with the array, crash or not.

    The space is taken beforehand: where a disk fills up under a map, the system kills the process that writes to it.

    Raises:
        OSError: There is not as much space.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f".sketches.{secrets.token_hex(8)}"
    size = shape[0] * shape[1] * np.dtype(np.float32).itemsize
    try:
        with path.open("xb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
    except OSError as error:
        message = f"{directory} has no room for the {size:,} bytes of the sketches ({error.strerror}): free space there"
        raise OSError(error.errno, message) from error
    finally:
        path.unlink(missing_ok=True)
