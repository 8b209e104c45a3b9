"""Sketches on disk: shards addressed by the hash of what they were made from.

    store = ShardStore(open_artifacts(settings), key, samples=len(samples), sketch_dim=2048, shard_rows=1024)
    for shard in store.missing():
        rows = store.rows(shard)
        store.write(shard, engine.sketch(samples[rows.start : rows.stop]))
    stored = store.load(scratch=cache_dir)

A job that is killed goes on at the first missing shard, a second job over the same data and model finds
nothing missing, and workers that share the store share the work. A shard is one safetensors file that carries the
checksum of its own tensors: one atomic write, so that two writers of the same shard leave one valid shard.

Whether all shards are there is told by one listing, by names and sizes; what is in them is checked when they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.storage import sketches_prefix
from workers.data.stopping import Stopped
from workers.gradients.checked_tensors import LENGTH_BYTES, pack, unpack
from workers.gradients.engine import Sketches
from workers.gradients.features import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.storage import ArtifactStore
    from workers.gradients.config import GradientConfig

LONGEST_HEADER = 4096
"""Of a shard's file. Not its exact length, which is safetensors' affair: a shard that is off by less fails its sum."""
IN_MEMORY_BYTES = 1 << 30
"""Matrices up to this size are loaded into memory; larger ones are mapped from a scratch file."""


class ShardDamaged(RuntimeError):
    """A shard that is needed is not there or does not match its checksum; `missing(verify=True)` names all such."""

    def __init__(self, shard: int) -> None:
        """Name the shard by its number."""
        self.shard = shard
        super().__init__(f"shard {shard} is missing or damaged: compute it again")


def sketch_key(
    *,
    dataset_digest: str,
    model_revision: str,
    dtype: str,
    template_version: str | int,
    config: GradientConfig,
    owner: str | None = None,
) -> str:
    """The content address of a dataset's sketches, 64 hex digits.

    Args:
        dataset_digest: Digest of the tokenised samples or of all that decides them: rows, columns, max_length.
        model_revision: `ProxyModel.revision`.
        dtype: The model's dtype as set.
        template_version: Version of the code that turns rows into tokens.
        config: What is sketched, and how.
        owner: Who alone is to find them; None for whoever looks.
    """
    made_from = {
        "dataset": dataset_digest,
        "model": model_revision,
        "dtype": dtype,
        "template": template_version,
        "gradients": config.identity(),
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
    """

    values: NDArray[np.float32]
    finite: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    token_losses: NDArray[np.float32]
    unprompted: NDArray[np.float32]


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
    """The shards of one content key."""

    def __init__(self, artifacts: ArtifactStore, key: str, *, samples: int, sketch_dim: int, shard_rows: int) -> None:
        """Open the shards of a key, or begin them.

        Args:
            artifacts: Where the shards are kept.
            key: What `sketch_key` gave.
            samples: Number n of samples in the dataset.
            sketch_dim: Length p of a sketch.
            shard_rows: Samples of a shard. Who begins a key decides: the manifest's number wins over a later one.
        """
        if samples < 1 or sketch_dim < 1 or shard_rows < 1:
            raise ValueError("samples, sketch_dim and shard_rows must be positive")
        self.key, self.samples, self.sketch_dim = key, samples, sketch_dim
        self._artifacts = artifacts
        self.shard_rows = self._settled_rows(shard_rows)
        self.shards = -(-samples // self.shard_rows)

    def rows(self, shard: int) -> range:
        """The places in the dataset's samples that a shard covers."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.samples))

    def write(self, shard: int, sketches: Sketches) -> None:
        """Keep a shard's sketches; replaces what was there.

        Raises:
            ValueError: The sketches are not of this shard's shape.
        """
        expected = (len(self.rows(shard)), self.sketch_dim)
        if sketches.values.shape != expected:
            raise ValueError(f"shard {shard} is {expected}, the sketches are {sketches.values.shape}")
        tensors: dict[str, NDArray[Any]] = {
            "values": sketches.values.astype(np.float32, copy=False),
            "losses": sketches.losses.astype(np.float32, copy=False),
            "finite": sketches.finite.astype(np.uint8),
            "token_losses": sketches.token_losses.astype(np.float32, copy=False),
            "unprompted": sketches.unprompted.astype(np.float32, copy=False),
        }
        self._artifacts.write(self._name(shard), pack(tensors, self._label(shard)))

    def write_feature(self, feature: str, shard: int, values: NDArray[np.float32]) -> None:
        """Keep something else of a shard's samples, the first dimension theirs; replaces what was there.

        Raises:
            ValueError: There is not one for each of the shard's rows.
        """
        if len(values) != len(self.rows(shard)):
            raise ValueError(
                f"shard {shard} has {len(self.rows(shard))} rows, and there are {len(values)} of {feature}"
            )
        content = pack({feature: values.astype(np.float32, copy=False)}, self._label(shard, feature))
        self._artifacts.write(self._name(shard, feature), content)

    def feature(self, feature: str, shard: int) -> NDArray[np.float32] | None:
        """What `write_feature` kept of a shard; None where it is not there or not whole."""
        content = self._artifacts.read(self._name(shard, feature))
        found = None if content is None else unpack(content)
        if found is None or found.metadata != self._label(shard, feature):
            return None
        values = found.tensors.get(feature)
        return values if values is not None and len(values) == len(self.rows(shard)) else None

    def feature_tiles(
        self, feature: str, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[tuple[range, NDArray[np.float32]]]:
        """What was kept of all shards, in order, with the samples they cover.

        Args:
            feature: Which.
            should_stop: Asked once a shard.

        Raises:
            ShardDamaged: Something is missing or damaged.
            Stopped: `should_stop` said so.
        """
        for shard in range(self.shards):
            if should_stop is not None and should_stop():
                raise Stopped
            values = self.feature(feature, shard)
            if values is None:
                raise ShardDamaged(shard)
            yield self.rows(shard), values

    def missing_features(self, features: Collection[str], *, verify: bool = False) -> list[int]:
        """The shards of which one of some features is still to be made; arguments as for `missing`."""
        if not features:
            return []
        there = {stored.name for stored in self._artifacts.list(sketches_prefix(self.key))}

        def has(shard: int, feature: str) -> bool:
            if self._name(shard, feature) not in there:
                return False
            return not verify or self.feature(feature, shard) is not None

        return [shard for shard in range(self.shards) if not all(has(shard, one) for one in features)]

    def missing(self, *, verify: bool = False) -> list[int]:
        """The shards still to make: those that are not there, or not of their size.

        Args:
            verify: Read every shard (1 GB/s and more from a disk) and name those of a wrong checksum too. Without it
                the price is one listing, and `load` raises where a checksum is wrong.
        """
        sizes = {stored.name: stored.size for stored in self._artifacts.list(sketches_prefix(self.key))}
        there = [shard for shard in range(self.shards) if self._has_size(shard, sizes.get(self._name(shard), 0))]
        whole = {shard for shard in there if not verify or self._read(shard) is not None}
        return [shard for shard in range(self.shards) if shard not in whole]

    def keep_scored(self, scored: Scored) -> None:
        """Keep what the sketches are of, for every job that uses them."""
        content = json.dumps({"left_out": scored.left_out, "weights_stored_as": scored.weights_stored_as})
        self._artifacts.write_new(f"{sketches_prefix(self.key)}scored.json", content.encode())

    def scored(self) -> Scored | None:
        """What the sketches are of; None where nothing was kept."""
        content = self._artifacts.read(f"{sketches_prefix(self.key)}scored.json")
        if content is None:
            return None
        found = json.loads(content)
        return Scored(tuple(found["left_out"]), found["weights_stored_as"])

    def mark_used(self) -> None:
        """Note in the store that the key is in use now: what was used last is the last to be deleted for space."""
        self._artifacts.write(f"{sketches_prefix(self.key)}used", b"")

    def finite_rows(
        self, places: NDArray[np.int64], should_stop: Callable[[], bool] | None = None
    ) -> NDArray[np.float32]:
        """Some of the sketches that are finite: one shard and what is asked for are in memory at a time.

        Args:
            places: Numbers among the finite sketches, ascending, shape (m,), int64.
            should_stop: Asked once a shard.

        Returns:
            Shape (m, sketch_dim), float32.

        Raises:
            ShardDamaged: A shard is missing or damaged.
            Stopped: `should_stop` said so.
        """
        found = np.empty((len(places), self.sketch_dim), dtype=np.float32)
        before = 0
        for _, tile in self.tiles(should_stop):
            finite = tile.values[tile.finite]
            first, end = np.searchsorted(places, (before, before + len(finite)))
            found[first:end] = finite[places[first:end] - before]
            before += len(finite)
        return found

    def tiles(
        self, should_stop: Callable[[], bool] | None = None, without: Collection[int] = ()
    ) -> Iterator[tuple[range, Sketches]]:
        """The shards in order with the samples they cover: for work that needs one at a time.

        Args:
            should_stop: Asked once a shard.
            without: Shards to leave out.

        Raises:
            ShardDamaged: A shard is missing or damaged.
            Stopped: `should_stop` said so.
        """
        for shard in range(self.shards):
            if should_stop is not None and should_stop():
                raise Stopped
            if shard not in without:
                yield self.rows(shard), self._required(shard)

    def load(
        self,
        *,
        scratch: Path | None = None,
        in_memory_bytes: int = IN_MEMORY_BYTES,
        without: Collection[int] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> StoredSketches:
        """All sketches that are finite as one matrix; the others are left out as it is filled, not by a second copy.

        Args:
            scratch: Directory for the file behind a matrix that is too large for memory; needs n p 4 bytes there.
            in_memory_bytes: Largest matrix that is held in memory if there is a scratch directory.
            without: Shards to leave out: their samples count as not scored.
            should_stop: Asked once a shard.

        Raises:
            ShardDamaged: A shard is missing or damaged.
            OSError: The scratch directory has no room.
            Stopped: `should_stop` said so.
        """
        shape = (self.samples, self.sketch_dim)
        size = self.samples * self.sketch_dim * np.dtype(np.float32).itemsize
        if scratch is None or size <= in_memory_bytes:
            values = np.empty(shape, dtype=np.float32)
        else:
            values = _unnamed_map(scratch, shape)
        token_losses, unprompted = np.full((2, self.samples), np.nan, dtype=np.float32)
        finite, scored = np.zeros((2, self.samples), dtype=np.bool_)
        count = 0
        for rows, tile in self.tiles(should_stop, frozenset(without)):
            part = slice(rows.start, rows.stop)
            scored[part] = True
            token_losses[part], unprompted[part], finite[part] = tile.token_losses, tile.unprompted, tile.finite
            usable = tile.values[tile.finite]
            values[count : count + len(usable)] = usable
            count += len(usable)
        return StoredSketches(values[:count], finite, scored, token_losses, unprompted)

    def bytes_stored(self) -> int:
        """Bytes that the key takes in the store."""
        return sum(stored.size for stored in self._artifacts.list(sketches_prefix(self.key)))

    def has(self, shard: int) -> bool:
        """Whether a shard's sketches are there and whole; reads them."""
        return self._read(shard) is not None

    def _name(self, shard: int, feature: str | None = None) -> str:
        return f"{sketches_prefix(self.key)}{feature or 'shard'}-{shard:05d}.safetensors"

    def _label(self, shard: int, feature: str | None = None) -> dict[str, str]:
        """What a shard's file says of itself: its rows too, since shards of another size have the same numbers."""
        rows = self.rows(shard)
        label = {"key": self.key, "shard": str(shard), "rows": f"{rows.start}-{rows.stop}"}
        return label if feature is None else {**label, "version": str(version_of(feature))}

    def _has_size(self, shard: int, size: int) -> bool:
        tensors = len(self.rows(shard)) * (4 * self.sketch_dim + 3 * 4 + 1)  # values, three losses, finite
        return 0 < size - LENGTH_BYTES - tensors <= LONGEST_HEADER

    def _settled_rows(self, shard_rows: int) -> int:
        """The shard size that all users of the key share: that of the first."""
        name = f"{sketches_prefix(self.key)}manifest.json"
        wanted = {"samples": self.samples, "sketch_dim": self.sketch_dim, "shard_rows": shard_rows}
        content = self._artifacts.read(name)
        if content is None:
            if self._artifacts.write_new(name, json.dumps(wanted).encode()):
                return shard_rows
            content = self._artifacts.read(name)
        settled = self._rows_in(content or b"")
        if settled is None:  # damaged: shards of other rows than ours will count as damaged too
            self._artifacts.write(name, json.dumps(wanted).encode())
            return shard_rows
        return settled

    def _rows_in(self, manifest: bytes) -> int | None:
        """The shard size that a manifest settles; None if it is not what was written for this key's only matrix."""
        try:
            found = json.loads(manifest)
        except ValueError:
            return None
        settled = found.get("shard_rows") if isinstance(found, dict) else None
        if type(settled) is not int or settled < 1:
            return None
        whole = {"samples": self.samples, "sketch_dim": self.sketch_dim, "shard_rows": settled}
        return settled if found == whole else None

    def _required(self, shard: int) -> Sketches:
        sketches = self._read(shard)
        if sketches is None:
            raise ShardDamaged(shard)
        return sketches

    def _read(self, shard: int) -> Sketches | None:
        """A shard's sketches; None where it is not there, not whole, or another's."""
        content = self._artifacts.read(self._name(shard))
        found = None if content is None else unpack(content)
        if found is None or found.metadata != self._label(shard):
            return None
        try:
            tensors = found.tensors
            sketches = Sketches(
                tensors["values"],
                tensors["losses"],
                tensors["finite"].astype(np.bool_),
                tensors["token_losses"],
                tensors["unprompted"],
            )
        except KeyError:
            return None
        rows = len(self.rows(shard))
        by_row = (sketches.losses, sketches.finite, sketches.token_losses, sketches.unprompted)
        whole = sketches.values.shape == (rows, self.sketch_dim) and all(one.shape == (rows,) for one in by_row)
        return sketches if whole else None


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
