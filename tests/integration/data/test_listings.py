"""Datasets of many files in a bucket and on a hub: which files they are, in which order, and under which names.

The S3 server is moto's, on loopback; the hub is `tests.integration.models.hub_server`, since no real one can be had.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.uris.datasets import check_uri
from tests.integration.models.hub_server import HubServer, hub_server
from tests.integration.s3_server import S3Server, s3_server
from workers.data.errors import DatasetError
from workers.data.fetch import Snapshot, fetch, files_of, recall
from workers.data.formats import Record, iter_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = f"hf://datasets/org/set@{COMMIT}"


def jsonl(*numbers: int) -> bytes:
    return "".join(json.dumps({"prompt": f"{number}?", "response": str(number)}) + "\n" for number in numbers).encode()


def parquet(*numbers: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"prompt": [f"{n}?" for n in numbers], "response": [str(n) for n in numbers]}), sink)
    return sink.getvalue()


def said(snapshot: Snapshot, settings: Settings, starts: list[int] | None = None) -> list[Any]:
    records = iter_records(snapshot, settings, starts=starts)
    return [record.values["response"] for record in records if isinstance(record, Record)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.client.create_bucket(Bucket="data")
        for key, body in {
            "set/part-1.jsonl": jsonl(2, 3),
            "set/part-0.jsonl": jsonl(0, 1),
            "set/more/part-2.jsonl": jsonl(4),
            "set/README.md": b"#",
            "set/_SUCCESS": b"",
            "settled/part-9.jsonl": jsonl(9),
        }.items():
            server.client.put_object(Bucket="data", Key=key, Body=body)
        yield server


class TestS3:
    @pytest.fixture
    def settings(self, make_settings: SettingsFactory, s3: S3Server) -> Settings:
        return make_settings(s3_endpoint_url=s3.url, s3_buckets=("data",))

    @pytest.mark.parametrize(
        ("uri", "files", "rows"),
        [
            ("s3://data/set/", ["more/part-2", "part-0", "part-1"], ["4", "0", "1", "2", "3"]),
            ("s3://data/set/part-*.jsonl", ["part-0", "part-1"], ["0", "1", "2", "3"]),
            ("s3://data/set/**/*.jsonl", ["more/part-2", "part-0", "part-1"], ["4", "0", "1", "2", "3"]),
        ],
    )
    def test_a_prefix_or_a_pattern_names_its_objects_in_order(
        self, settings: Settings, uri: str, files: list[str], rows: list[str]
    ) -> None:
        checked, starts = check_uri(uri, settings), []
        snapshot = fetch(checked, settings)
        assert [part.name for part in snapshot.parts] == [f"s3://data/set/{file}.jsonl" for file in files]
        assert said(snapshot, settings, starts) == rows
        assert len(starts) == len(files)
        assert recall(checked, snapshot.fingerprint, settings) == snapshot

    def test_nothing_there_is_said(self, settings: Settings) -> None:
        with pytest.raises(DatasetError, match=r"s3://data/none/ names no file of rows"):
            fetch(check_uri("s3://data/none/", settings), settings)


class TestHub:
    @pytest.fixture
    def hub(self) -> Iterator[HubServer]:
        with hub_server() as hub:
            yield hub

    @pytest.fixture
    def settings(self, make_settings: SettingsFactory, hub: HubServer) -> Settings:
        return make_settings(hub_datasets=("org/*",), hub_url=hub.url)

    @pytest.mark.parametrize(
        ("files", "uri", "expected"),
        [
            (
                ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"],
                HUB,
                ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            ),
            (["main/train-0.parquet", "socratic/train-0.parquet"], f"{HUB}/socratic", ["socratic/train-0.parquet"]),
            (["en.jsonl", "de.jsonl", "README.md", ".gitattributes"], f"{HUB}/de", ["de.jsonl"]),
            (["a.parquet", "a.jsonl", "dataset_infos.json"], HUB, ["a.parquet"]),
            (["b.jsonl", "a.jsonl", "constraints.jsonl"], HUB, ["a.jsonl", "b.jsonl", "constraints.jsonl"]),
        ],
    )
    def test_the_shards_of_the_configuration_and_of_the_split_train(
        self, settings: Settings, hub: HubServer, files: list[str], uri: str, expected: list[str]
    ) -> None:
        hub.datasets["org/set", COMMIT] = dict.fromkeys(files, b"")
        assert [file.uri for file in files_of(check_uri(uri, settings), settings)] == [
            f"{HUB}/{one}" for one in expected
        ]

    def test_rows_run_through_the_shards_and_each_is_named(self, settings: Settings, hub: HubServer) -> None:
        names = [f"data/train-{number:05d}-of-00002.parquet" for number in range(2)]
        hub.datasets["org/set", COMMIT] = {names[1]: parquet(2, 3, 4), names[0]: parquet(0, 1), "README.md": b"#"}
        uri, starts = check_uri(HUB, settings), []
        snapshot = fetch(uri, settings)
        assert said(snapshot, settings, starts) == list("01234")
        assert starts == [0, 2]
        assert [part.name for part in snapshot.parts] == [f"{HUB}/{name}" for name in names]
        assert recall(uri, snapshot.fingerprint, settings) == snapshot

    def test_what_is_not_there_or_closed_is_said(self, settings: Settings, hub: HubServer) -> None:
        with pytest.raises(DatasetError) as missing:
            fetch(check_uri(HUB, settings), settings)
        assert missing.value.reason_code == "missing"
        hub.refuse = 401
        with pytest.raises(DatasetError) as closed:
            fetch(check_uri(HUB, settings), settings)
        assert closed.value.reason_code == "no_permission"
        assert "HF_TOKEN" in closed.value.message
