"""Jobs whose artifacts are in a bucket: the API and its workers share no directory."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from app.core.storage import StorageFailed
from app.core.storage import s3 as s3_module
from app.core.storage.s3 import S3Artifacts
from tests.integration.conftest import real_rows
from tests.integration.s3_server import Failing, S3Server, read_only, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.settings import Settings
    from tests.integration.conftest import Service

pytestmark = pytest.mark.small_shards

PREFIX = "team/spice"
SHARD = re.compile(r"\bshard-[0-9a-f]+\.safetensors$")
PUBLISHED = [
    *("checksums.excerpts.jsonl", "checksums.picks.digests", "checksums.rows.jsonl"),
    *("checksums.scores.parquet", "checksums.suspects.jsonl"),
    *("excerpts.jsonl", "picks.digests", "rows.jsonl"),
    *("scores.parquet", "suspects.jsonl"),
]
_numbers = count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(running: S3Server) -> S3Server:
    running.reset()
    return running


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = f"artifacts-{next(_numbers)}"
    server.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def service_settings(service_settings: Settings, server: S3Server, bucket: str) -> Settings:
    return service_settings.model_copy(
        update={"artifacts_url": f"s3://{bucket}/{PREFIX}", "s3_endpoint_url": server.url}
    )


@pytest.fixture
def store(server: S3Server, bucket: str) -> S3Artifacts:
    return S3Artifacts(f"s3://{bucket}/{PREFIX}", server.url)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that are opened from now on give up at once."""
    monkeypatch.setattr(s3_module, "ATTEMPTS", 2)
    monkeypatch.setattr(s3_module, "REQUEST_ATTEMPTS", 1)


def succeeded(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    return job


def shards_of(server: S3Server, bucket: str) -> list[str]:
    return [key for key in server.keys(bucket, f"{PREFIX}/sketches/") if SHARD.search(key)]


def written(server: S3Server, bucket: str) -> list[str]:
    """Names of the objects that were put since the last reset."""
    return [
        call.path.removeprefix(f"/{bucket}/{PREFIX}/").split("/")[-1] for call in server.calls if call.method == "PUT"
    ]


def test_a_job_runs_with_nothing_shared_but_the_bucket(service: Service, server: S3Server, bucket: str) -> None:
    job = succeeded(service, service.request())
    assert not (service.settings.data_dir / "artifacts").exists()
    assert len(shards_of(server, bucket)) == 4
    assert server.keys(bucket, f"{PREFIX}/jobs/") == [f"{PREFIX}/jobs/{job['id']}/{name}" for name in PUBLISHED]
    assert list((service.settings.cache_path / "rows").iterdir()) == []
    picked = service.http.get(job["links"]["subset"]).json()["indices"]
    rows = service.http.get(job["links"]["subset"], params={"rows": "true"})
    assert [json.loads(line) for line in rows.text.splitlines()] == [real_rows()[i] for i in sorted(picked)]


def test_rows_come_with_length_etag_and_ranges(service: Service) -> None:
    job = succeeded(service, service.request())

    def get(**headers: str) -> Any:
        return service.http.get(job["links"]["subset"], params={"rows": "true"}, headers=headers)

    whole = get()
    size = len(whole.content)
    assert whole.headers["content-length"] == str(size)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"].startswith("application/x-ndjson")
    assert f"subset-{job['id']}.jsonl" in whole.headers["content-disposition"]
    part = get(Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert get(Range="bytes=-7").content == whole.content[-7:]
    assert get(**{"Range": "bytes=5-", "If-Range": whole.headers["etag"]}).content == whole.content[5:]
    assert get(**{"Range": "bytes=5-", "If-Range": '"another"'}).status_code == 200
    assert whole.content[3:5] in get(Range="bytes=0-1,3-4").content
    beyond = get(Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert beyond.json()["type"] == "range-not-satisfiable"
    assert (get(Range="rows=1-2").status_code, get(Range="rows=1-2").content) == (200, whole.content)


def test_a_second_job_finds_the_sketches_by_one_listing(service: Service, server: S3Server, bucket: str) -> None:
    first = succeeded(service, service.request())
    server.reset()
    second = succeeded(service, service.request(conflict_penalty=0.5))
    assert second["result"]["sketches_reused"]
    assert second["result"]["sketches"] == first["result"]["sketches"]
    *published, used = sorted(written(server, bucket))
    assert (published, used[:5]) == (PUBLISHED, "used-")
    assert sum("shard-" in call.path for call in server.calls) == 2 * 4  # each and its index are read once


def test_a_job_goes_on_with_the_shards_that_are_there(service: Service, server: S3Server, bucket: str) -> None:
    first = succeeded(service, service.request())
    for key in shards_of(server, bucket)[1:3]:
        server.client.delete_object(Bucket=bucket, Key=key)
    server.reset()
    second = succeeded(service, service.request())
    assert len(shards_of(server, bucket)) == 4
    assert len([name for name in written(server, bucket) if SHARD.search(name)]) == 2
    subsets = [service.http.get(job["links"]["subset"]).json()["indices"] for job in (first, second)]
    assert subsets[0] == subsets[1]


def test_damaged_shards_are_made_again_in_one_round(service: Service, server: S3Server, bucket: str) -> None:
    first = succeeded(service, service.request())
    for key in shards_of(server, bucket):
        content = bytearray(server.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        content[-5] ^= 0xFF
        server.client.put_object(Bucket=bucket, Key=key, Body=bytes(content))
    second = succeeded(service, service.request())
    assert not second["result"]["sketches_reused"]
    subsets = [service.http.get(job["links"]["subset"]).json()["indices"] for job in (first, second)]
    assert subsets[0] == subsets[1]


def test_a_job_that_fails_or_is_cancelled_at_the_end_leaves_no_rows(
    service: Service, server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.stages import publishing  # noqa: PLC0415 - after the service's settings are in place

    result = publishing.result_of

    def fails(*_: object) -> None:
        raise RuntimeError("made up")

    def is_cancelled(*arguments: Any) -> Any:
        assert server.keys(bucket, f"{PREFIX}/jobs/{job_id}")
        service.http.post(f"/jobs/{job_id}/cancel")
        return result(*arguments)

    for happens, state in ((fails, "failed"), (is_cancelled, "cancelled")):
        monkeypatch.setattr(publishing, "result_of", happens)
        job_id = service.submit(service.request())
        service.work()
        assert service.job(job_id)["state"] == state
        assert server.keys(bucket, f"{PREFIX}/jobs/") == []


def test_moments_of_unavailability_go_unnoticed(service: Service, server: S3Server) -> None:
    failing = Failing(2, lambda call: call.method == "PUT" and "/shard-" in call.path)
    server.refuse = failing
    succeeded(service, service.request())
    assert failing.left == 0


@pytest.mark.usefixtures("_impatient")
def test_a_read_only_bucket_fails_the_job_by_name(service: Service, server: S3Server, bucket: str) -> None:
    server.refuse = read_only
    job = service.run(service.request())
    assert (job["state"], job["error"]["type"]) == ("failed", "storage-failed")
    assert f"s3://{bucket}/{PREFIX}" in job["error"]["detail"]
    assert "let the service write there" in job["error"]["detail"]


@pytest.mark.usefixtures("_impatient")
def test_a_bucket_that_is_not_there_fails_the_job_by_name(service: Service, server: S3Server, bucket: str) -> None:
    server.client.delete_bucket(Bucket=bucket)
    job = service.run(service.request())
    assert (job["state"], job["error"]["type"]) == ("failed", "storage-failed")
    assert f"s3://{bucket}/{PREFIX}" in job["error"]["detail"]


@pytest.mark.usefixtures("_impatient")
def test_a_server_that_does_not_answer_is_said_by_the_api(service: Service) -> None:
    job = succeeded(service, service.request())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = S3Artifacts("s3://gone/spice", f"http://127.0.0.1:{unused.getsockname()[1]}")
    state = service.http.app.state  # type: ignore[attr-defined]
    state.resources = replace(state.resources, artifacts=nowhere)
    answer = service.http.get(job["links"]["subset"], params={"rows": "true"})
    assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
    assert "SPICE_S3_ENDPOINT_URL" in answer.json()["detail"]


def test_rows_that_were_deleted_are_gone(service: Service, store: S3Artifacts) -> None:
    job = succeeded(service, service.request())
    store.remove_all("jobs/")
    answer = service.http.get(job["links"]["subset"], params={"rows": "true"})
    assert (answer.status_code, answer.json()["type"]) == (404, "rows-gone")


def test_a_large_file_goes_up_in_parts(store: S3Artifacts, server: S3Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * (70 << 12)  # 70 MiB
    source = tmp_path / "rows.jsonl"
    source.write_bytes(content)
    server.reset()
    store.put("jobs/a/rows.jsonl", source)
    parts = [call for call in server.calls if "partNumber" in call.query]
    assert len(parts) == 9
    stored = store.stat("jobs/a/rows.jsonl")
    assert stored is not None
    assert stored.size == len(content)
    assert stored.etag
    with store.open("jobs/a/rows.jsonl") as stream:
        stream.seek(69 << 20)
        assert stream.read(100) == content[69 << 20 :][:100]


def test_an_upload_that_fails_leaves_nothing(store: S3Artifacts, server: S3Server, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"x" * (20 << 20))
    server.refuse = lambda call: (403, "AccessDenied") if "partNumber=2" in call.query else None
    with pytest.raises(StorageFailed, match="could not write jobs/a/rows"):
        store.put("jobs/a/rows.jsonl", source)
    assert server.keys(bucket) == []
    assert "Uploads" not in server.client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("how", ["honours", "refuses", "ignores"])
def test_an_object_that_is_there_is_not_created_anew(store: S3Artifacts, server: S3Server, how: str) -> None:
    """With a server that knows `If-None-Match`, one that answers 501 to it, and one that takes no notice."""
    if how == "ignores":
        server.ignored = ("HTTP_IF_NONE_MATCH",)
    if how == "refuses":
        server.refuse = Refusing()
    assert store.write_new("sketches/a/manifest.json", b"first")
    assert not store.write_new("sketches/a/manifest.json", b"second")
    assert store.read("sketches/a/manifest.json") == b"first"


class Refusing:
    """501 to the first PUT: the one that is conditional."""

    def __init__(self) -> None:
        self._first = True

    def __call__(self, call: Any) -> tuple[int, str] | None:
        first, self._first = self._first and call.method == "PUT", self._first and call.method != "PUT"
        return (501, "NotImplemented") if first else None


def test_one_of_many_creators_wins(store: S3Artifacts) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write_new("sketches/a/manifest.json", str(i).encode()), range(8)))
    assert sum(won) == 1
    assert store.read("sketches/a/manifest.json") == str(won.index(True)).encode()


def test_names_sizes_and_deletion(store: S3Artifacts, server: S3Server, bucket: str) -> None:
    server.client.put_object(Bucket=bucket, Key="team/spicery/other", Body=b"not ours")
    for name in ("sketches/a/1", "sketches/a/2", "sketches/ab/1", "jobs/a/rows.csv"):
        store.write(name, name.encode())
    assert {stored.name: stored.size for stored in store.list("sketches/a/")} == {
        "sketches/a/1": 12,
        "sketches/a/2": 12,
    }
    assert len(list(store.list("sketches/"))) == 3
    store.remove("sketches/a/1")
    store.remove("sketches/a/1")
    store.remove_all("sketches/")
    assert store.read("sketches/a/2") is None
    assert sorted(server.keys(bucket)) == [f"{PREFIX}/jobs/a/rows.csv", "team/spicery/other"]
    server.refuse = lambda call: (403, "AccessDenied") if call.query.startswith("delete") else None
    with pytest.raises(StorageFailed, match="could not delete"):
        store.remove("jobs/a/rows.csv")
    with pytest.raises(ValueError, match="leaves the store"):
        store.read("../other")
