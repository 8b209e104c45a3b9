"""Dataset files that somebody made to do harm, beyond those of test_formats.py: a clear error or a counted row."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyarrow.parquet import encryption

from app.core.uris.datasets import UriRefused, check_uri
from workers.data.errors import DatasetError
from workers.data.fetch import fetch
from workers.data.formats import read_columns
from workers.data.rejection import Reason

from .test_formats import jsonl, parquet, read

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory

    from .conftest import SnapshotFactory

ROW = {"prompt": "2 + 2?", "response": "4"}


def refusal(snapshot_of: SnapshotFactory, settings: Settings, name: str, content: bytes) -> tuple[str, str]:
    with pytest.raises(DatasetError) as caught:
        read(snapshot_of(name, content), settings)
    return caught.value.reason_code, caught.value.message


class TestCompressed:
    def test_a_bomb_of_many_members(self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory) -> None:
        member = gzip.compress(b"\n" * 1_000_000)
        code, message = refusal(snapshot_of, make_settings(row_max_bytes=100_000), "a.jsonl.gz", member * 3)
        assert code == "decompression_bomb"
        assert "SPICE_DATASET_MAX_RATIO" in message

    def test_a_bomb_within_a_bomb_is_undone_once(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        inner = gzip.compress(b"\n" * 50_000_000)
        rows = read(snapshot_of("a.jsonl.gz", gzip.compress(inner)), settings)
        assert set(rows) <= {Reason.INVALID_JSON, Reason.INVALID_UTF8}
        assert len(inner) < 60_000

    def test_two_suffixes_of_compression_are_no_format(self, root: Path, settings: Settings) -> None:
        with pytest.raises(UriRefused, match="does not tell the format"):
            check_uri((root / "a.jsonl.gz.gz").as_uri(), settings)

    def test_a_window_of_gigabytes(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        writer = io.BytesIO()
        with compressor.stream_writer(writer, closefd=False) as stream:
            stream.write(jsonl([ROW] * 1000))
        code, message = refusal(snapshot_of, settings, "a.jsonl.zst", writer.getvalue())
        assert code == "damaged"
        assert "zstd data is damaged" in message

    def test_skippable_frames_hold_no_rows(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        skippable = struct.pack("<II", 0x184D2A50, 1_000_000) + bytes(1_000_000)
        content = skippable + zstandard.compress(jsonl([ROW])) + skippable
        assert read(snapshot_of("a.jsonl.zst", content), settings) == [ROW]

    def test_a_name_and_comment_without_end(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        header = b"\x1f\x8b\x08\x18" + bytes(6) + b"n" * 5_000_000  # a name that never ends
        assert refusal(snapshot_of, settings, "a.jsonl.gz", header)[0] == "damaged"

    def test_a_wrong_checksum(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        whole = bytearray(gzip.compress(jsonl([ROW] * 100)))
        whole[-8:-4] = struct.pack("<I", zlib.crc32(b"other"))
        assert refusal(snapshot_of, settings, "a.jsonl.gz", bytes(whole))[0] == "damaged"


class TestText:
    @pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
    def test_other_encodings_are_read_by_their_mark_and_never_guessed(
        self, snapshot_of: SnapshotFactory, settings: Settings, codec: str, name: str
    ) -> None:
        text = {"a.jsonl": '{"a": "é"}\n', "a.csv": "a\né\n", "a.json": '[{"a": "é"}]'}[name]
        try:
            rows = read(snapshot_of(name, text.encode(codec)), settings)
        except DatasetError as error:
            assert error.reason_code in {"bad_header", "not_an_array", "damaged"}  # noqa: PT017 - either is right
        else:
            right = rows == [{"a": "é"}]  # what the mark at its start says the file holds
            assert right or all(row in (Reason.INVALID_UTF8, Reason.INVALID_JSON) for row in rows)

    def test_nul_bytes_are_text_or_no_json(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        assert read(snapshot_of("a.jsonl", b'{"a": "\\u0000"}\n\0\n'), settings) == [{"a": "\0"}, Reason.INVALID_JSON]

    def test_numbers_that_are_not_json(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        rows = read(snapshot_of("a.jsonl", b'{"a": 1e999999}\n{"a": ' + b"1" * 5000 + b"}\n"), settings)
        assert rows == [{"a": float("inf")}, Reason.INVALID_JSON]

    def test_a_row_of_a_million_keys(self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory) -> None:
        row = b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}\n"
        assert len(read_columns(snapshot_of("a.jsonl", row), make_settings())) == 1000
        assert read(snapshot_of("a.jsonl", row), make_settings(row_max_bytes=100_000)) == [Reason.ROW_TOO_LONG]


class TestParquet:
    def test_every_odd_type_is_a_value(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        table = pa.table(
            {
                "nothing": pa.nulls(2),
                "decimal": pa.array([Decimal("1.25"), None], pa.decimal256(40, 10)),
                "binary": pa.array([b"\xff\0", None], pa.large_binary()),
                "fixed": pa.array([b"abcd", None], pa.binary(4)),
                "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
                "struct": pa.array([{"a": [{"b": None}]}, None]),
                "half": pa.array([1.5, None], pa.float16()),
                "time": pa.array([0, None], pa.time64("ns")),
                "words": pa.array(["x", None]).dictionary_encode(),
            }
        )
        first, second = read(snapshot_of("a.parquet", parquet(table)), settings)
        assert isinstance(first, dict)
        assert (first["decimal"], first["binary"], first["words"]) == (Decimal("1.25"), b"\xff\0", "x")
        assert isinstance(second, dict)
        assert set(second.values()) == {None}

    def test_an_encrypted_file(self, snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path) -> None:
        class Kms(encryption.KmsClient):
            def __init__(self, _config: object) -> None:
                super().__init__()

            def wrap_key(self, key: bytes, _master: str) -> bytes:
                return key

            def unwrap_key(self, key: bytes, _master: str) -> bytes:
                return key

        factory = encryption.CryptoFactory(Kms)
        for plaintext_footer in (False, True):
            wanted = encryption.EncryptionConfiguration(
                footer_key="f", column_keys={"c": ["prompt"]}, plaintext_footer=plaintext_footer
            )
            properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), wanted)
            path = tmp_path / "encrypted.parquet"
            table = pa.Table.from_pylist([ROW] * 10)
            with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
                writer.write_table(table)
            code, message = refusal(snapshot_of, settings, "a.parquet", path.read_bytes())
            assert code == "damaged"
            assert "write it again" in message

    @pytest.mark.parametrize("length", [0, 1, 2**31 - 1, 2**32 - 1])
    def test_a_footer_length_that_lies(self, snapshot_of: SnapshotFactory, settings: Settings, length: int) -> None:
        content = parquet([ROW])[:-8] + struct.pack("<I", length) + b"PAR1"
        assert refusal(snapshot_of, settings, "a.parquet", content)[0] == "damaged"

    def test_ten_thousand_row_groups(self, snapshot_of: SnapshotFactory, settings: Settings) -> None:
        content = parquet(pa.Table.from_pylist([ROW] * 10_000), row_group_size=1, write_statistics=False)
        assert len(read(snapshot_of("a.parquet", content), settings)) == 10_000

    @pytest.mark.parametrize("depth", [30, 60])
    def test_columns_nested_very_deep(self, snapshot_of: SnapshotFactory, settings: Settings, depth: int) -> None:
        kind: Any = pa.string()
        value: Any = "x"
        for _ in range(depth):
            kind, value = pa.list_(kind), [value]
        content = parquet(pa.table({"a": pa.array([value], kind), "prompt": ["p"]}))
        if depth == 30:
            assert read(snapshot_of("a.parquet", content), settings) == [{"a": value, "prompt": "p"}]
        else:
            code, message = refusal(snapshot_of, settings, "a.parquet", content)
            assert code == "damaged"
            assert "too deeply nested" in message

    def test_a_long_row_is_held_to_the_limit_of_decoded_bytes(
        self, snapshot_of: SnapshotFactory, make_settings: SettingsFactory
    ) -> None:
        text = "".join(chr(33 + i % 90) for i in range(3_000_000))
        content = parquet([{"a": text}], compression="none", use_dictionary=False)
        settings = make_settings(dataset_max_decoded_bytes=1_000_000)
        assert refusal(snapshot_of, settings, "a.parquet", content)[0] == "too_large_decoded"


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "file:///proc/self/environ", "file:///dev/zero"])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_what_lies_outside_the_roots(settings: Settings, uri: str, format_: str) -> None:
    with pytest.raises(UriRefused, match="outside the directories that may be read"):
        check_uri(uri, settings, format_)


def test_a_file_that_is_all_holes(root: Path, make_settings: SettingsFactory) -> None:
    path = root / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(10 << 40)
    settings = make_settings()
    tracemalloc.start()
    with pytest.raises(DatasetError, match="SPICE_DATASET_MAX_BYTES"):
        fetch(check_uri(path.as_uri(), settings), settings)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
