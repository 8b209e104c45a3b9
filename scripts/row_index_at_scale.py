"""How long ten million rows take to be found in the index of sketches, and what memory that takes.

    python -m scripts.row_index_at_scale [--rows 10000000] [--shard-rows 1024]

Makes an index of made-up rows in a temporary directory, as shards of that size leave it, and looks a pool up in it that
has 1% more rows, in another order. Prints a line of Markdown for docs/growing.md.
"""

from __future__ import annotations

import argparse
import mmap
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from workers.gradients.row_index import NAME_BYTES, Digests, Index, PoolRows, find

SEED = 0


def made_up(rows: int, seed: int) -> np.ndarray:
    """Digests of so many rows, shape (rows, 2), uint64."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 2**64, (rows, 2), dtype=np.uint64, endpoint=False)


def write_index(path: Path, rows: int, shard_rows: int) -> int:
    """Write the index of all rows but the last; the number of its shards."""
    digests, shards = made_up(rows, SEED), -(-rows // shard_rows)
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    names = made_up(shards, SEED + 1).view(np.uint8).reshape(shards, NAME_BYTES)
    ordered = Digests(digests[order, 0], digests[order, 1])
    index = Index(ordered, names, (order // shard_rows).astype(np.int32), (order % shard_rows).astype(np.int32))
    with path.open("wb") as stream:
        index.write(stream)
    return shards


def write_pool(path: Path, rows: int) -> int:
    """Write the digests of a pool with 1% more rows, shuffled; the number of its rows."""
    pool = np.concatenate([made_up(rows, SEED), made_up(rows // 100, SEED + 2)])
    np.random.Generator(np.random.PCG64(SEED)).shuffle(pool)
    pool.tofile(path)
    return len(pool)


def look_up(index_path: Path, pool_path: Path) -> tuple[float, int]:
    """Seconds of the processor that a look-up takes, and rows that were not found."""
    began = time.process_time()
    digests = np.memmap(pool_path, dtype=np.uint64, mode="r").reshape(-1, 2)
    with index_path.open("rb") as stream:
        index = Index.mapped(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    if index is None:
        raise SystemExit("the index is not whole")
    missing = find([index], PoolRows.of(digests), frozenset(index.names())).missing()
    return time.process_time() - began, len(missing)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shard-rows", type=int, default=1024)
    parser.add_argument("--keep", type=Path, help="a directory for the files; a look-up alone if they are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        index_path, pool_path = directory / f"{options.rows}.index", directory / f"{options.rows}.pool"
        if not index_path.exists():
            write_index(index_path, options.rows, options.shard_rows)
            write_pool(pool_path, options.rows)
            if options.keep:
                print("Made: run it again for a process of its own that only looks up.")
                return
        seconds, missing = look_up(index_path, pool_path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = index_path.stat().st_size / 1e6
        print(f"| {options.rows:,} | {missing:,} | {size:,.0f} MB | {seconds:.1f} s | {peak:,.0f} MiB |")


if __name__ == "__main__":
    main()
