from __future__ import annotations

import csv
import io
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spice_client.tables import Rows, Subset
from workers.data.export import write_rows
from workers.data.formats import Record, iter_records

from .test_formats import COMPRESSORS, ENCODERS, parquet

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory

    from .conftest import SnapshotFactory

ROWS = [{"prompt": f'line "{i}",\nnext', "response": f"ü{i}"} for i in range(50)]


def decode(format_: str, data: bytes) -> list[dict[str, Any]]:
    if format_ == "jsonl":
        return [json.loads(line) for line in data.decode().splitlines()]
    if format_ == "json":
        rows: list[dict[str, Any]] = json.loads(data)
        return rows
    if format_ == "csv":
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    table: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return table


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("format_", ENCODERS)
@hypothesis_settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picks=st.lists(st.integers(0, 49), max_size=60))
def test_the_picked_rows_come_in_file_order_in_the_datasets_format(
    snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path, format_: str, suffix: str, picks: list[int]
) -> None:
    snapshot = snapshot_of(f"a.{format_}{suffix}", COMPRESSORS[suffix](ENCODERS[format_](ROWS)))
    write_rows(snapshot, np.array(picks, dtype=np.int64), tmp_path / "out", settings)
    assert decode(format_, (tmp_path / "out").read_bytes()) == [ROWS[i] for i in sorted(set(picks))]


def test_row_numbers_are_those_of_reading_bad_rows_included(
    snapshot_of: SnapshotFactory, make_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = make_settings(row_max_bytes=100)
    lines = [b'{"n":  0}', b"", b"{broken", b"x" * 500, b'{"n": 1.50, "n": 2}', b'\xff"', b'{"n": 5}']
    snapshot = snapshot_of("a.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(lines))
    readable = [record.row for record in iter_records(snapshot, settings) if isinstance(record, Record)]
    assert readable == [0, 5]
    write_rows(snapshot, np.array([5, 0]), tmp_path / "out.jsonl", settings)
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"n":  0}\n{"n": 5}\n'


def test_text_is_copied_byte_by_byte(snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    snapshot = snapshot_of("a.csv", b'a,"b"\r\n1,"x ""y""\r\nz"\r\n2, 3 \r\n')
    write_rows(snapshot, np.array([1, 0]), out, settings)
    assert out.read_bytes() == b'a,"b"\n1,"x ""y""\r\nz"\n2, 3 \n'
    snapshot = snapshot_of("a.json", b'[ {"n": 1.50e0} ,{"n":2}, {"n" : "\\u00fc"}]')
    write_rows(snapshot, np.array([2, 0]), out, settings)
    assert out.read_bytes() == b'[\n{"n": 1.50e0},\n{"n" : "\\u00fc"}\n]\n'


def test_parquet_keeps_its_schema_across_row_groups(
    snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path
) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int16(), nullable=False),
            pa.field("text", pa.large_string(), metadata={"k": "v"}),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
            pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ],
        metadata={"made": "here"},
    )
    rows = [
        {"id": i, "text": f"t{i}", "kind": "ab"[i % 2], "messages": [{"role": "user", "content": str(i)}]}
        for i in range(1000)
    ]
    content = parquet(pa.Table.from_pylist(rows, schema), row_group_size=300)
    snapshot = snapshot_of("a.parquet", content)
    stored = pq.read_schema(snapshot.path)
    for picks in ([], [0], [299, 300, 999], list(range(0, 1000, 3))):
        write_rows(snapshot, np.array(picks, dtype=np.int64), tmp_path / "out.parquet", settings)
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.schema.equals(stored, check_metadata=True)
        assert table.to_pylist() == [rows[i] for i in picks]


@pytest.mark.parametrize("format_", ENCODERS)
@pytest.mark.parametrize("row", [-1, 50, 10**12])
def test_a_row_that_is_not_there_is_refused_and_leaves_no_file(
    snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path, format_: str, row: int
) -> None:
    snapshot = snapshot_of(f"a.{format_}", ENCODERS[format_](ROWS))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=f"row {row}"):
        write_rows(snapshot, np.array([0, row]), tmp_path / "out" / "rows", settings)
    assert list((tmp_path / "out").iterdir()) == []


def test_memory_is_bounded(snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path) -> None:
    snapshot = snapshot_of("a.jsonl", (b'{"prompt": "' + b"x" * 1000 + b'"}\n') * 50_000)
    tracemalloc.start()
    try:
        write_rows(snapshot, np.arange(0, 50_000, 2), tmp_path / "out", settings)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size == 25_000 * 1015


def test_columns_of_views_and_their_structs_are_read_picked_and_handed_out(
    snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path
) -> None:
    """Some writers of Parquet keep text as views, of which Arrow takes no rows by number."""
    turn = pa.struct({"role": pa.string_view(), "content": pa.string_view(), "name": pa.string_view()})
    schema = pa.schema({"note": pa.string_view(), "first": turn, "raw": pa.binary_view()})
    first = {"role": "user", "content": "a", "name": None}
    rows = [{"note": f"n{i}", "first": first, "raw": bytes([i])} for i in range(5)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    snapshot = snapshot_of("views.parquet", sink.getvalue())
    write_rows(snapshot, np.array([3, 1]), tmp_path / "out", settings)
    kept = (tmp_path / "out").read_bytes()
    read = [one.values for one in iter_records(snapshot, settings) if isinstance(one, Record)]
    assert read[0] == {"note": "n0", "first": {"role": "user", "content": "a"}, "raw": b"\0"}
    picks = Subset("j", [3, 1], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0], [2.0, 3.0])
    assert [row["note"] for row in Rows(kept, "parquet", picks).to_list()] == ["n3", "n1"]
