"""The index of rows against a dictionary, for any pools and files."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.gradients.row_index import NOWHERE, Index, PoolRows, find, merged

HALVES = st.integers(0, 3) | st.integers(0, 2**64 - 1)
DIGEST = st.tuples(HALVES, HALVES)
"""Few values in either half: in earnest two rows never share one half alone, and here they often do."""
POOLS = st.lists(DIGEST, max_size=30)
SHARDS = st.lists(st.lists(DIGEST, min_size=1, max_size=8, unique=True), max_size=6)


def array(digests: list[tuple[int, int]]) -> np.ndarray:
    return np.array(digests, dtype=np.uint64).reshape(-1, 2)


def name(number: int) -> str:
    return f"{number:032x}"


def read_back(index: Index) -> Index:
    stream = io.BytesIO()
    index.write(stream)
    found = Index.mapped(memoryview(stream.getvalue()))
    assert found is not None
    return found


@given(pool=POOLS, files=SHARDS, gone=st.sets(st.integers(0, 5)), merge=st.integers(0, 6))
@settings(deadline=None)
def test_every_row_is_found_where_it_was_first_put(
    pool: list[tuple[int, int]], files: list[list[tuple[int, int]]], gone: set[int], merge: int
) -> None:
    there = frozenset(name(number) for number in range(len(files)) if number not in gone)
    kept: dict[tuple[int, int], tuple[str, int]] = {}
    for number, rows in enumerate(files):
        for row, digest in enumerate(rows):
            if number not in gone:
                kept.setdefault(digest, (name(number), row))
    indexes = [read_back(Index.of_file(name(number), array(rows))) for number, rows in enumerate(files)]
    if indexes[:merge]:
        indexes = [read_back(merged(indexes[:merge], there)), *indexes[merge:]]
    places = find(indexes, PoolRows.of(array(pool)), there)
    assert [pool[place] for place in places.missing()] == list(
        dict.fromkeys(digest for digest in pool if digest not in kept)
    )
    for digest, group in zip(pool, places.pool.group, strict=True):
        file = int(places.file[group])
        found = None if file == NOWHERE else (places.files[file], int(places.row[group]))
        assert found == kept.get(digest)


@given(pool=POOLS)
def test_equal_rows_are_one_and_their_first_stands_for_them(pool: list[tuple[int, int]]) -> None:
    rows = PoolRows.of(array(pool))
    different = sorted(set(pool))
    assert list(zip(rows.digests.high.tolist(), rows.digests.low.tolist(), strict=True)) == different
    assert [different[group] for group in rows.group] == pool
    assert rows.first.tolist() == [pool.index(digest) for digest in different]


@given(content=st.binary(max_size=100))
def test_what_is_no_index_is_none_and_no_error(content: bytes) -> None:
    found = Index.mapped(memoryview(content))
    assert found is None or len(content) == 16 + 16 * len(found.files) + 24 * len(found.digests)


@given(pool=POOLS, wanted=POOLS)
@settings(deadline=None)
def test_wanted_rows_are_found_in_a_pool_each_place_once(
    pool: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    left = {digest: [at for at, other in enumerate(pool) if other == digest] for digest in pool}
    expected = [left[digest].pop(0) if left.get(digest) else NOWHERE for digest in wanted]
    assert PoolRows.of(array(pool)).places_of(array(wanted)).tolist() == expected
