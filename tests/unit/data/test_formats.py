"""What is read from each format, and what becomes of rows and files that are not as they should be."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workers.data.describe import describe
from workers.data.errors import DatasetError
from workers.data.formats import BadRecord, Record, iter_records, read_columns
from workers.data.rejection import Reason
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory
    from workers.data.fetch import Snapshot

    from .conftest import SnapshotFactory

ROWS = [{"prompt": "2 + 2?", "response": "4"}, {"prompt": 'Say "hi",\nplease', "response": "hi, ü 🙂"}]


def parquet(rows: list[dict[str, Any]] | pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2, ensure_ascii=False).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["prompt"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


ENCODERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "jsonl": jsonl,
    "json": as_json,
    "csv": as_csv,
    "parquet": parquet,
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def read(snapshot: Snapshot, settings: Settings) -> list[dict[str, Any] | Reason]:
    records = list(iter_records(snapshot, settings))
    assert [record.row for record in records] == list(range(len(records)))
    return [record.values if isinstance(record, Record) else record.reason for record in records]


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("format_", ENCODERS)
def test_every_format_in_every_wrapping_gives_the_same_rows(
    snapshot_of: SnapshotFactory, settings: Settings, format_: str, suffix: str
) -> None:
    snapshot = snapshot_of(f"a.{format_}{suffix}", COMPRESSORS[suffix](ENCODERS[format_](ROWS)))
    assert read(snapshot, settings) == ROWS
    assert read_columns(snapshot, settings) == ["prompt", "response"]


text = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@pytest.mark.parametrize("format_", ENCODERS)
@hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"prompt": text, "a b": text}), min_size=1, max_size=8))
def test_what_is_written_is_read(
    snapshot_of: SnapshotFactory, settings: Settings, format_: str, rows: list[dict[str, str]]
) -> None:
    assert read(snapshot_of(f"a.{format_}", ENCODERS[format_](rows)), settings) == rows


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.zst", "a.parquet.gz"])
def test_any_bytes_give_rows_or_a_clear_error(
    snapshot_of: SnapshotFactory, settings: Settings, name: str, data: bytes
) -> None:
    try:
        describe(snapshot_of(name, data), settings)
    except DatasetError as error:
        assert error.message  # noqa: PT017 - either outcome is right


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner)
)


@hypothesis_settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(text, json_value, max_size=4), max_size=5),
    indent=st.none() | st.integers(0, 3),
    chunk=st.integers(1, 40),
)
def test_a_json_array_is_cut_right_wherever_the_chunks_end(
    snapshot_of: SnapshotFactory,
    settings: Settings,
    rows: list[dict[str, Any]],
    indent: int | None,
    chunk: int,
) -> None:
    snapshot = snapshot_of("a.json", json.dumps(rows, indent=indent).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.data.split.CHUNK_BYTES", chunk)
        assert read(snapshot, settings) == rows


class TestJsonLines:
    def test_blank_lines_and_a_bom_and_crlf_are_tolerated(
        self, snapshot_of: SnapshotFactory, settings: Settings
    ) -> None:
        snapshot = snapshot_of("a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": 2}\n\n{"a": 3}')
        assert read(snapshot, settings) == [{"a": 1}, {"a": 2}, {"a": 3}]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'{"a": 1', Reason.INVALID_JSON),
            (b"[1, 2]", Reason.INVALID_JSON),
            (b'"text"', Reason.INVALID_JSON),
            (b"null", Reason.INVALID_JSON),
            (b'{"a": 1} {"a": 2}', Reason.INVALID_JSON),
            (b'{"a": ' + b"9" * 5000 + b"}", Reason.INVALID_JSON),
            (b'{"a": "\xff"}', Reason.INVALID_UTF8),
            (b'{"a": "\xed\xa0\x80"}', Reason.INVALID_UTF8),
            (b'{"a": 1, "a": 2}', Reason.DUPLICATE_KEY),
            (b'{"x": {"a": 1, "a": 2}}', Reason.DUPLICATE_KEY),
            (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.NESTED_TOO_DEEP),
            (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Reason.NESTED_TOO_DEEP),
            (b"[" * 200_000, Reason.NESTED_TOO_DEEP),
            (b'{"a": "' + b"x" * 300_000 + b'"}', Reason.ROW_TOO_LONG),
        ],
    )
    def test_a_bad_line_costs_one_row(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory, line: bytes, reason: Reason
    ) -> None:
        settings = make_settings(row_max_bytes=1_000_000 if reason is not Reason.ROW_TOO_LONG else 1000)
        snapshot = snapshot_of("a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
        assert read(snapshot, settings) == [{"a": 0}, reason, {"a": 2}]

    @pytest.mark.parametrize(
        "content", [b'[{"a": 1}]', b'\xef\xbb\xbf\n [\r\n  {\n    "a": 1\n  }\n]\n', b'[{"a":1}\n,{"a":1}]']
    )
    def test_an_array_under_the_name_of_lines_is_read(
        self, snapshot_of: SnapshotFactory, settings: Settings, content: bytes
    ) -> None:
        """And does not give a reason for each of its lines."""
        assert read(snapshot_of("a.jsonl", content), settings)[0] == {"a": 1}

    def test_the_limit_of_a_row_is_exact(self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory) -> None:
        line = b'{"a": "xx"}'
        for end in (b"\n", b"\r\n", b""):
            for bom in (b"", b"\xef\xbb\xbf"):
                snapshot = snapshot_of("a.jsonl", bom + line + end)
                assert read(snapshot, make_settings(row_max_bytes=len(line))) == [{"a": "xx"}]
                assert read(snapshot, make_settings(row_max_bytes=len(line) - 1)) == [Reason.ROW_TOO_LONG]

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
    def test_a_line_of_100_mb_is_passed_over_in_bounded_memory(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory, name: str
    ) -> None:
        settings = make_settings(row_max_bytes=100_000, dataset_max_ratio=10_000)
        huge = b"x" * 100_000_000
        first, second = {
            "a.jsonl.gz": (b'{"a": "', b'"}\n{"a": "1"}\n'),
            "a.json.gz": (b'[{"a": "', b'"}, {"a": "1"}]'),
            "a.csv.gz": (b'a\n"', b'"\n1\n'),
        }[name]
        snapshot = snapshot_of(name, gzip.compress(first + huge + second, compresslevel=1))
        del huge
        tracemalloc.start()
        try:
            assert read(snapshot, settings) == [Reason.ROW_TOO_LONG, {"a": "1"}]
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


class TestJson:
    @pytest.mark.parametrize(
        ("content", "rows"),
        [
            (b"[]", []),
            (b" \n[ ]\n ", []),
            (b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
            (b'[{"a": 1}, 7, {"a": "]}"}]', [{"a": 1}, Reason.INVALID_JSON, {"a": "]}"}]),
            (b'[{"a": nope}, {"a": 2}]', [Reason.INVALID_JSON, {"a": 2}]),
            (b'[{"a": "\\"\\\\"}]', [{"a": '"\\'}]),
            (b'[{"a": "\xff"}]', [Reason.INVALID_UTF8]),
            (b'[{"a": 1},]', [{"a": 1}]),
            (b'[{"a": 1},,{"a": 2}]', [{"a": 1}, Reason.INVALID_JSON, {"a": 2}]),
            (b'[{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", [Reason.NESTED_TOO_DEEP]),
        ],
    )
    def test_items_are_read_one_by_one(
        self, snapshot_of: SnapshotFactory, settings: Settings, content: bytes, rows: list[Any]
    ) -> None:
        assert read(snapshot_of("a.json", content), settings) == rows

    @pytest.mark.parametrize(
        ("content", "code", "says"),
        [
            (b'{"a": 1, "b": "x"}', "not_an_array", "none of which holds rows"),
            (b'{"a": [{"x": 1}], "b": [{"y": 1}]}', "not_an_array", "more than one of which hold rows"),
            (b'{\n"a": 1}\n{\n"a": 2\n', "damaged", "cut short at line 5"),
            (b"7", "not_an_array", "should hold an array"),
            (b'[{"a": 1}', "damaged", "no ']' at the end"),
            (b'[{"a": "1}]', "damaged", "cut short"),
            (b"[" * 100_000, "damaged", "cut short"),
            (b'[{"a": 1}] x', "damaged", "more text"),
            (b"[}]", "damaged", "without its"),
        ],
    )
    def test_a_file_that_is_no_array_is_refused(
        self, snapshot_of: SnapshotFactory, settings: Settings, content: bytes, code: str, says: str
    ) -> None:
        with pytest.raises(DatasetError, match=says) as caught:
            read(snapshot_of("a.json", content), settings)
        assert caught.value.reason_code == code

    def test_white_space_without_end_is_no_row_and_takes_no_memory(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory
    ) -> None:
        settings = make_settings(row_max_bytes=1000)
        spaces = b" " * 5_000_000
        snapshot = snapshot_of("a.json", spaces + b'[{"a": 1},' + spaces + b'{"a": 2}]' + spaces)
        assert read(snapshot, settings) == [{"a": 1}, {"a": 2}]


class TestCsv:
    @pytest.mark.parametrize(
        ("content", "rows"),
        [
            (b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
            (b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
            (b'a,b\n"1\n\n2","say ""x"", y"\n', [{"a": "1\n\n2", "b": 'say "x", y'}]),
            (b'a,b\n5" disk,x\n1,2\n', [{"a": '5" disk', "b": "x"}, {"a": "1", "b": "2"}]),
            (b"a,b\n1\n1,2,3\n1,2\n", [Reason.RAGGED_ROW, Reason.RAGGED_ROW, {"a": "1", "b": "2"}]),
            (b"a,b\n\xff,2\n1,2\n", [Reason.INVALID_UTF8, {"a": "1", "b": "2"}]),
            (b"a,b\n1\rx,2\n1,2\n", [Reason.RAGGED_ROW, {"a": "1", "b": "2"}]),
            (b'a,b\n1,2\n1,"never closed\n1,2\n', [{"a": "1", "b": "2"}, Reason.RAGGED_ROW]),
            (b"a,b\n,\n", [{"a": "", "b": ""}]),
            (b"a,b\n" + b"x" * 200_000 + b",2\n", [{"a": "x" * 200_000, "b": "2"}]),
            (b"a,b\n", []),
        ],
    )
    def test_records_are_read_one_by_one(
        self, snapshot_of: SnapshotFactory, settings: Settings, content: bytes, rows: list[Any]
    ) -> None:
        assert read(snapshot_of("a.csv", content), settings) == rows

    @pytest.mark.parametrize(
        ("content", "code"),
        [(b"a,b,a\n1,2,3\n", "duplicate_column"), (b"\xff\n1\n", "bad_header"), (b"a" * 2000, "bad_header")],
    )
    def test_a_bad_header_is_refused(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory, content: bytes, code: str
    ) -> None:
        with pytest.raises(DatasetError) as caught:
            read(snapshot_of("a.csv", content), make_settings(row_max_bytes=1000))
        assert caught.value.reason_code == code

    @hypothesis_settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(body=st.text('a",\n', max_size=40))
    def test_records_end_where_pythons_reader_ends_them(
        self, snapshot_of: SnapshotFactory, settings: Settings, body: str
    ) -> None:
        def cells_of(text: str) -> list[list[str]]:
            return [cells for cells in csv.reader(io.StringIO(text, newline="")) if cells]

        expected: list[Any] = [
            dict(zip("xy", cells, strict=True)) if len(cells) == 2 else Reason.RAGGED_ROW for cells in cells_of(body)
        ]
        if expected and len(cells_of(body + "\nmore")) == len(expected):  # a quote is never closed
            expected[-1] = Reason.RAGGED_ROW
        assert read(snapshot_of("a.csv", b"x,y\n" + body.encode()), settings) == expected


class TestParquet:
    def test_row_groups_and_string_kinds(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        values = [f"v{i}" for i in range(1000)]
        table = pa.table(
            {
                "large": pa.array(values, pa.large_string()),
                "dictionary": pa.array(values).dictionary_encode(),
                "messages": [[{"role": "user", "content": value}] for value in values],
            }
        )
        rows = read(snapshot_of("a.parquet", parquet(table, row_group_size=300)), settings)
        assert rows[999] == {
            "large": "v999",
            "dictionary": "v999",
            "messages": [{"role": "user", "content": "v999"}],
        }

    def test_odd_types_become_python_values(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        row = {
            "n": 7,
            "d": Decimal("1.50"),
            "t": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
            "b": b"\x00\xff",
            "none": None,
            "s": {"x": [1, 2]},
        }
        assert read(snapshot_of("a.parquet", parquet([row])), settings) == [row]

    def test_a_value_python_cannot_hold_is_refused_by_column(
        self, snapshot_of: SnapshotFactory, settings: Settings
    ) -> None:
        table = pa.table({"when": pa.array([2**62], pa.timestamp("us")), "prompt": ["x"]})
        snapshot = snapshot_of("a.parquet", parquet(table))
        with pytest.raises(DatasetError, match="column 'when' of type timestamp") as caught:
            read(snapshot, settings)
        assert caught.value.reason_code == "unreadable_column"
        wanted = list(iter_records(snapshot, settings, {"prompt"}))
        assert wanted == [Record(0, {"prompt": "x"})]

    def test_broken_utf8_costs_one_row(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        data = pa.array([b"ok", b"\xff\xfe", b"fine"], pa.binary())
        broken = pa.Array.from_buffers(pa.string(), 3, data.buffers())
        assert read(snapshot_of("a.parquet", parquet(pa.table({"a": broken}))), settings) == [
            {"a": "ok"},
            Reason.INVALID_UTF8,
            {"a": "fine"},
        ]

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (b"", "damaged"),
            (b"PAR1 not really PAR1", "damaged"),
            (parquet([{"a": "x" * 1000}])[:-20], "damaged"),
            (parquet(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])), "duplicate_column"),
        ],
    )
    def test_a_bad_file_is_refused(
        self, snapshot_of: SnapshotFactory, settings: Settings, content: bytes, code: str
    ) -> None:
        with pytest.raises(DatasetError) as caught:
            read(snapshot_of("a.parquet", content), settings)
        assert caught.value.reason_code == code

    def test_a_bomb_is_refused(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        bomb = parquet([{"a": "x" * 20_000_000}], compression="zstd", use_dictionary=False)
        with pytest.raises(DatasetError) as caught:
            read(snapshot_of("a.parquet", bomb), settings)
        assert caught.value.reason_code == "decompression_bomb"

    def test_damaged_pages_are_an_error(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        content = bytearray(parquet([{"a": f"text {i}"} for i in range(5000)], compression="zstd"))
        content[100:400] = bytes(300)
        with pytest.raises(DatasetError, match="damaged"):
            read(snapshot_of("a.parquet", bytes(content)), settings)

    @pytest.mark.parametrize("store_schema", [True, False])
    def test_one_long_value_repeated_by_a_dictionary_is_stopped_by_the_decoded_limit(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory, *, store_schema: bool
    ) -> None:
        repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 10_000]))
        snapshot = snapshot_of("a.parquet", parquet(pa.table({"a": repeated}), store_schema=store_schema))
        assert snapshot.bytes < 100_000
        with pytest.raises(DatasetError) as caught:
            read(snapshot, make_settings(dataset_max_decoded_bytes=50_000_000))
        assert caught.value.reason_code == "too_large_decoded"


class TestLimits:
    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    @pytest.mark.parametrize("format_", ["jsonl", "parquet"])
    def test_a_bomb_is_stopped(
        self, snapshot_of: SnapshotFactory, settings: Settings, format_: str, suffix: str
    ) -> None:
        bomb = COMPRESSORS[suffix](b"\n" * 50_000_000)
        with pytest.raises(DatasetError, match="more than 200 times") as caught:
            read(snapshot_of(f"a.{format_}{suffix}", bomb), settings)
        assert caught.value.reason_code == "decompression_bomb"

    def test_the_decoded_size_is_limited(self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory) -> None:
        content = gzip.compress(np.random.default_rng(0).bytes(2_000_000))
        with pytest.raises(DatasetError) as caught:
            read(snapshot_of("a.jsonl.gz", content), make_settings(dataset_max_decoded_bytes=1_000_000))
        assert caught.value.reason_code == "too_large_decoded"

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_data_cut_short_is_an_error_not_a_shorter_dataset(
        self, snapshot_of: SnapshotFactory, settings: Settings, suffix: str
    ) -> None:
        whole = COMPRESSORS[suffix](jsonl([{"a": i} for i in range(10_000)]))
        for content in (whole[:-5], whole[: len(whole) // 2], whole + b"garbage"):
            with pytest.raises(DatasetError, match="damaged or cut short"):
                read(snapshot_of(f"a.jsonl{suffix}", content), settings)

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_several_frames_in_a_row_are_read(
        self, snapshot_of: SnapshotFactory, settings: Settings, suffix: str
    ) -> None:
        compress = COMPRESSORS[suffix]
        snapshot = snapshot_of(f"a.jsonl{suffix}", compress(b'{"a": 1}\n') + compress(b'{"a": 2}\n'))
        assert read(snapshot, settings) == [{"a": 1}, {"a": 2}]

    @pytest.mark.parametrize("format_", ENCODERS)
    def test_the_number_of_rows_is_limited(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory, format_: str
    ) -> None:
        snapshot = snapshot_of(f"a.{format_}", ENCODERS[format_](ROWS))
        assert len(read(snapshot, make_settings(dataset_max_rows=2))) == 2
        with pytest.raises(DatasetError, match="more than 1 rows"):
            read(snapshot, make_settings(dataset_max_rows=1))


class TestDescribe:
    def test_the_report(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        snapshot = snapshot_of("a.jsonl.gz", gzip.compress(b'{"question": "q", "answer": "a"}\nnope\n{"id": 1}\n'))
        report = describe(snapshot, settings)
        assert (report.rows, report.columns, report.shape) == (3, ("question", "answer", "id"), "prompt_response")
        assert {reason: list(rows) for reason, rows in report.unreadable.items()} == {Reason.INVALID_JSON: [1]}
        assert (report.format, report.compression) == ("jsonl", "gzip")
        assert (report.bytes, report.fingerprint) == (snapshot.bytes, snapshot.fingerprint)

    def test_columns_that_are_not_recognised_are_no_error(
        self, snapshot_of: SnapshotFactory, settings: Settings
    ) -> None:
        for format_, encode in ENCODERS.items():
            report = describe(snapshot_of(f"a.{format_}", encode([{"foo": "1", "bar": "2"}] * 300)), settings)
            assert (report.rows, report.columns, report.shape) == (300, ("foo", "bar"), None)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.jsonl", b""),
            ("a.jsonl", b"\xef\xbb\xbf"),
            ("a.jsonl", b"\n\n"),
            ("a.json", b""),
            ("a.json", b"  "),
            ("a.json", b"[]"),
            ("a.csv", b""),
            ("a.csv", b"a,b\n"),
            ("a.parquet", parquet(pa.table({"a": pa.array([], pa.string())}))),
            ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
            ("a.csv.zst", zstandard.compress(b"")),
        ],
    )
    def test_an_empty_dataset_is_refused(
        self, snapshot_of: SnapshotFactory, settings: Settings, name: str, content: bytes
    ) -> None:
        with pytest.raises(DatasetError, match="has no rows") as caught:
            describe(snapshot_of(name, content), settings)
        assert caught.value.reason_code == "empty"

    def test_a_dataset_without_a_readable_row_is_refused_with_reasons(
        self, snapshot_of: SnapshotFactory, settings: Settings
    ) -> None:
        with pytest.raises(DatasetError, match=r"none of the 2 rows.*1 invalid_utf8 \(row 0\).*1 invalid_json"):
            describe(snapshot_of("a.jsonl", b"\xff\n{]\n"), settings)

    def test_it_can_be_watched_and_stopped(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        snapshot = snapshot_of("a.jsonl", b'{"a": 1}\n' * 3000)
        seen: list[int] = []
        describe(snapshot, settings, on_rows=seen.append)
        assert seen == [1000, 2000, 3000]
        with pytest.raises(Stopped):
            describe(snapshot, settings, should_stop=lambda: True)


class TestColumns:
    def test_names_that_a_database_cannot_hold_are_left_out(
        self, snapshot_of: SnapshotFactory, settings: Settings
    ) -> None:
        names = ["prompt", "nul\0", "half \ud800", "x" * 1001, "response"]
        snapshot = snapshot_of("a.jsonl", json.dumps(dict.fromkeys(names, "text")).encode())
        assert describe(snapshot, settings).columns == ("prompt", "response")

    @pytest.mark.parametrize("format_", ["csv", "json"])
    def test_a_great_many_take_no_great_time(
        self, snapshot_of: SnapshotFactory, settings: Settings, format_: str
    ) -> None:
        row = {f"c{i}": "1" for i in range(200_000)}
        assert len(read_columns(snapshot_of(f"a.{format_}", ENCODERS[format_]([row])), settings)) == 1000

    def test_a_message_is_text_that_a_database_can_hold(self) -> None:
        error = DatasetError("damaged", "a\0b\ud800c" + "x" * 5000)
        assert error.message.startswith("a\\0b\\ud800c")
        assert len(str(error)) == 2000


def test_bad_records_say_where(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    records = list(iter_records(snapshot_of("a.jsonl", b'{"a": 1}\n\n{\n'), settings))
    assert records == [Record(0, {"a": 1}), BadRecord(1, Reason.INVALID_JSON)]
