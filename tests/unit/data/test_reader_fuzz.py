"""Readers against random bytes and damaged files: rows or a reason, in bounded memory and time, and nothing else.

Seeded, so that a run repeats; ``SPICE_FUZZ_EXAMPLES=2000`` looks longer.
"""

from __future__ import annotations

import gzip
import os
import resource
import time
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workers.data.errors import DatasetError
from workers.data.formats import BadRecord, Record, iter_records, read_columns

from .test_formats import as_csv, as_json, jsonl, parquet

if TYPE_CHECKING:
    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory

    from .conftest import SnapshotFactory

EXAMPLES = int(os.environ.get("SPICE_FUZZ_EXAMPLES", "40"))
MOST_SECONDS = 5.0
MOST_GROWTH = 256 << 20
ROWS = [{"prompt": f"What is {i}?", "response": "ü🙂 " * i, "n": i, "tags": ["a", None]} for i in range(40)]
FLAT = [{"prompt": row["prompt"], "response": row["response"]} for row in ROWS]
WHOLE = {
    "a.jsonl": jsonl(ROWS),
    "a.json": as_json(ROWS),
    "a.csv": as_csv(FLAT),
    "a.parquet": parquet(ROWS),
    "b.parquet": parquet(ROWS, compression="zstd", row_group_size=7, use_dictionary=False, data_page_version="2.0"),
    "a.jsonl.gz": gzip.compress(jsonl(ROWS), mtime=0),
    "a.csv.zst": zstandard.compress(as_csv(FLAT)),
    "a.parquet.gz": gzip.compress(parquet(ROWS), mtime=0),
}
UGLY = [
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"[",
    b"{",
    b'"',
    b"\n",
    b",",
    b"\\u",
    b"\xff\xff\xff\x7f",
    b"PAR1",
    b"\x1f\x8b",
]


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes cut, changed, doubled or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 4, 64, len(whole)])))
        put = draw(st.one_of(st.binary(max_size=8), st.sampled_from(UGLY), st.just(bytes(content[start:end]) * 2)))
        content[start:end] = put
    return bytes(content)


def read(name: str, content: bytes, snapshot_of: SnapshotFactory, settings: Settings) -> None:
    """What every file must come to."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    snapshot = snapshot_of(name, content)
    try:
        names = read_columns(snapshot, settings)
        assert all(isinstance(name, str) for name in names)
        for i, record in enumerate(iter_records(snapshot, settings)):
            assert isinstance(record, Record | BadRecord)
            assert record.row == i
    except DatasetError as error:
        assert ":" in error.message  # noqa: PT017 - either outcome is right; after the colon it says what to do
    assert time.monotonic() - began < MOST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_GROWTH


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_gives_rows_or_a_clear_error(
    snapshot_of: SnapshotFactory, make_settings: SettingsFactory, name: str
) -> None:
    settings = make_settings(dataset_max_decoded_bytes=20_000_000, row_max_bytes=1_000_000)

    @seed(20260131)
    @hypothesis_settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(content=damage(WHOLE[name]))
    def fuzz(content: bytes) -> None:
        read(name, content, snapshot_of, settings)

    fuzz()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.zst"])
def test_random_bytes_give_rows_or_a_clear_error(
    snapshot_of: SnapshotFactory, make_settings: SettingsFactory, name: str
) -> None:
    settings = make_settings(dataset_max_decoded_bytes=20_000_000, row_max_bytes=1_000_000)
    heads = {"a.parquet": b"PAR1", "a.jsonl.gz": b"\x1f\x8b\x08\0", "a.csv.zst": b"\x28\xb5\x2f\xfd"}

    @seed(20260131)
    @hypothesis_settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(content=st.binary(max_size=500), headed=st.booleans())
    def fuzz(content: bytes, headed: bool) -> None:
        tail = b"PAR1" if name == "a.parquet" and headed else b""
        read(name, (heads.get(name, b"") if headed else b"") + content + tail, snapshot_of, settings)

    fuzz()
