"""Uploaded files: kept within limits under names that lead nowhere, for their own project alone."""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.core.db.tables import DEFAULT_PROJECT, Scope
from app.core.storage import open_artifacts
from app.housekeeping.retention import GRACE_S, sweep
from app.main import create_app
from tests.integration.conftest import Service, real_rows
from tests.integration.keys import make_key
from tests.integration.problems import fields_of, problem_of
from tests.integration.s3_server import S3Server, s3_server
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

ROW = b'{"prompt": "2+2?", "response": "4"}\n'
MOST, QUOTA = 5_000, 12_000


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"upload_max_bytes": MOST, "quota_upload_bytes": QUOTA})


def upload(service: Service, name: str, content: bytes, **options: Any) -> httpx.Response:
    return service.http.post("/files", params={"name": name}, content=content, **options)


def files_below(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_an_uploaded_file_is_a_dataset(service: Service) -> None:
    service.write_dataset(real_rows(20), "mine.jsonl")
    content = (service.directory / "mine.jsonl").read_bytes()
    answer = upload(service, "mine.jsonl", content[:4_000].rpartition(b"\n")[0])
    assert answer.status_code == 201
    kept = answer.json()
    digest = hashlib.sha256(content[:4_000].rpartition(b"\n")[0]).hexdigest()
    assert kept["id"] == digest
    assert kept["uri"] == f"upload://{DEFAULT_PROJECT}/{digest}/mine.jsonl"
    assert service.http.get("/files").json()["uploads"] == [kept]
    job = service.run(service.request(kept["uri"]))
    assert (job["state"], job["error"]) == ("succeeded", None)
    assert job["result"]["fingerprint"] == f"sha256:{digest}"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../../etc/passwd.jsonl", "passwd.jsonl"),
        ("..\\..\\boot.csv", "boot.csv"),
        ("/etc/cron.d/evil.jsonl", "evil.jsonl"),
        (".hidden.jsonl", "hidden.jsonl"),
        ("a b;rm -rf $HOME.jsonl", "a-b-rm--rf-HOME.jsonl"),
        ("Zeilen für München.csv", "Zeilen-f-r-M-nchen.csv"),
        ("<script>.json", "script.json"),
        ("-rf.jsonl", "rf.jsonl"),
        ("x" * 300 + ".jsonl", "x" * 80 + ".jsonl"),
    ],
)
def test_of_a_name_only_what_leads_nowhere_is_kept(service: Service, name: str, kept: str) -> None:
    answer = upload(service, name, ROW)
    assert answer.json()["name"] == kept
    root = service.settings.artifacts_path
    assert root is not None
    assert files_below(root) == [f"uploads/{DEFAULT_PROJECT}/{hashlib.sha256(ROW).hexdigest()}/{kept}"]


@pytest.mark.parametrize("name", ["rows.exe", "rows", "..", "", "rows.jsonl/..", "model.safetensors", "x.py", ".jsonl"])
def test_a_name_that_tells_no_format_is_refused(service: Service, name: str) -> None:
    message = fields_of(upload(service, name, ROW))["name"]
    assert ".jsonl" in message or "at least 1 character" in message
    assert "give the format" not in message, "an upload has no field for it"
    assert service.http.get("/files").json()["uploads"] == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.parquet", ROW, "does not begin as a Parquet file does"),
        ("rows.jsonl.gz", ROW, "does not begin as a gzip file does"),
        ("rows.csv.zst", ROW, "does not begin as a Zstandard file does"),
        ("rows.jsonl", gzip.compress(ROW, mtime=0), "give it a name that ends in .gz"),
        ("rows.jsonl", b"\x7fELF\x02\x01\x01\x00", "bytes that no text has"),
        ("rows.jsonl", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}', "send the file alone"),
    ],
)
def test_content_that_its_name_does_not_fit_is_refused(service: Service, name: str, content: bytes, told: str) -> None:
    assert told in fields_of(upload(service, name, content))["body"]
    root = service.settings.artifacts_path
    assert root is not None
    assert files_below(root) == []


@pytest.mark.parametrize("says_its_length", [True, False])
def test_a_file_over_the_limit_is_not_received(service: Service, says_its_length: bool) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000 * MOST:
            sent += 1 << 16
            yield ROW * ((1 << 16) // len(ROW))

    content = b"x" * (MOST + 1) if says_its_length else endless()
    with served(create_app(service.settings)) as url:
        try:
            answer = httpx.post(f"{url}/files?name=rows.jsonl", content=content, trust_env=False, timeout=60)
        except httpx.TransportError:  # the service has hung up before it was read
            answer = None
    assert sent < 10_000 * MOST
    if answer is not None:
        problem = problem_of(answer, 413)
        assert f"{MOST} are what an uploaded file may have (SPICE_UPLOAD_MAX_BYTES)" in problem["detail"]
    root = service.settings.artifacts_path
    assert root is not None
    assert files_below(root) == []
    assert upload(service, "rows.jsonl", ROW.ljust(MOST)).status_code == 201


def test_a_project_keeps_no_more_than_its_quota(service: Service) -> None:
    contents = [bytes([letter]) * MOST for letter in b"abc"]
    kept = [upload(service, "rows.csv", content).json() for content in contents[:2]]
    for headers in ({}, {"content-length": str(MOST)}):
        problem = problem_of(upload(service, "rows.csv", contents[2], headers=headers), 403)
        assert (problem["type"], problem["limit"]) == ("too-large-for-quota", "upload_bytes")
        assert f"other uploaded files {2 * MOST}, and {QUOTA} is what they may have together" in problem["detail"]
    assert upload(service, "rows.csv", contents[0]).status_code == 201, "what is there already takes nothing more"
    assert service.http.delete(f"/files/{kept[0]['id']}").status_code == 204
    assert upload(service, "rows.csv", contents[2]).status_code == 201
    problem_of(service.http.delete(f"/files/{kept[0]['id']}"), 404)


def test_of_many_files_at_once_no_more_are_kept_than_fit(service: Service) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda letter: upload(service, "rows.csv", bytes([letter]) * MOST), b"abcdef"))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [403] * 4
    assert sum(one["bytes"] for one in service.http.get("/files").json()["uploads"]) == 2 * MOST
    root = service.settings.artifacts_path
    assert root is not None
    assert len(files_below(root)) == 2, "nothing is left of those that were refused"


def test_uploads_can_be_closed(service: Service) -> None:
    closed = service.settings.model_copy(update={"upload_max_bytes": 0})
    with TestClient(create_app(closed), "http://localhost") as http:
        answer = http.post("/files", params={"name": "rows.jsonl"}, content=b"")
    assert "SPICE_UPLOAD_MAX_BYTES is 0" in fields_of(answer)["body"]


def test_no_file_uri_reaches_what_was_uploaded(service: Service) -> None:
    kept = upload(service, "rows.jsonl", ROW).json()
    root = service.settings.artifacts_path
    assert root is not None
    (path,) = (root / "uploads").rglob("rows.jsonl")
    wide = service.settings.model_copy(update={"allowed_roots": (str(root.parent),)})
    with TestClient(create_app(wide), "http://localhost") as http:
        message = fields_of(http.post("/datasets", json={"uri": path.as_uri()}))["uri"]
        assert "lies among uploaded files" in message
        found = http.get("/files").json()
        assert kept["name"] not in " ".join(one["name"] for one in found["datasets"])


@pytest.mark.parametrize("uri", ["upload://{project}/{id}/../{name}", "upload://{project}/{id}", "upload:///{name}"])
def test_only_what_the_service_named_is_an_upload(service: Service, uri: str) -> None:
    kept = upload(service, "rows.jsonl", ROW).json()
    body = service.request(uri.format(project=DEFAULT_PROJECT, id=kept["id"], name=kept["name"]))
    assert "is no uploaded file of this project" in fields_of(service.http.post("/jobs", json=body))["dataset.uri"]


class TestProjects:
    """Of another project's files nobody learns anything."""

    @pytest.fixture
    def service_settings(self, service_settings: Settings) -> Settings:
        return service_settings.model_copy(update={"auth": "keys"})

    def test_another_project_neither_sees_nor_names_nor_deletes_a_file(
        self, service: Service, sessions: Sessions
    ) -> None:
        owner, other = make_key(sessions, "search"), make_key(sessions, "ads")
        kept = upload(service, "rows.jsonl", ROW, headers=owner).json()
        assert service.http.get("/files", headers=owner).json()["uploads"] == [kept]
        assert service.http.get("/files", headers=other).json()["uploads"] == []
        problem_of(service.http.delete(f"/files/{kept['id']}", headers=other), 404)
        budget = {"selection": {"budget": {"count": 1}}}
        body = {"dataset": {"uri": kept["uri"]}, "model": {"uri": service.model_uri}, **budget}
        sources: dict[str, dict[str, Any]] = {
            "dataset.uri": body,
            "dataset.uris.0": {**body, "dataset": {"uris": [kept["uri"]]}},
            "selection.target.dataset.uri": {
                **body,
                "dataset": {"uri": service.write_dataset(real_rows(3))},
                "selection": {**budget["selection"], "target": {"dataset": {"uri": kept["uri"]}}},
            },
        }
        absent = kept["uri"].replace(kept["id"], "0" * 64)
        for field, named in sources.items():
            message = fields_of(service.http.post("/jobs", json=named, headers=other))[field]
            assert "is no uploaded file of this project" in message
        refused = fields_of(service.http.post("/datasets", json={"uri": kept["uri"]}, headers=other))
        unknown = fields_of(service.http.post("/datasets", json={"uri": absent}, headers=other))
        assert refused["uri"].replace(kept["id"], "0" * 64) == unknown["uri"], "whether it exists is not told"
        assert service.http.post("/jobs", json=body, headers=owner).status_code == 202

    def test_a_key_that_may_only_read_uploads_nothing(self, service: Service, sessions: Sessions) -> None:
        reader = make_key(sessions, "search", Scope.READ)
        problem_of(upload(service, "rows.jsonl", ROW, headers=reader), 403)
        problem_of(upload(service, "rows.jsonl", ROW), 401)


def test_an_old_file_is_deleted_unless_open_work_reads_it(service: Service, sessions: Sessions) -> None:
    settings = service.settings.model_copy(update={"uploads_max_age_s": 2 * GRACE_S})
    store, root = open_artifacts(settings), settings.artifacts_path
    assert root is not None
    old, read, new = (upload(service, f"{name}.jsonl", ROW + name.encode()).json() for name in ("old", "read", "new"))
    for one in (old, read):
        then = time.time() - 3 * GRACE_S
        os.utime(root / "uploads" / one["uri"].removeprefix("upload://"), (then, then))
    job_id = service.submit(service.request(read["uri"]))
    problem_of(service.http.delete(f"/files/{read['id']}"), 409)
    assert sweep(sessions, store, service.settings) == [], "no age is set"
    assert sweep(sessions, store, settings) == [f"uploads/{old['uri'].removeprefix('upload://')}"]
    service.http.post(f"/jobs/{job_id}/cancel")
    sweep(sessions, store, settings)
    assert [one["uri"] for one in service.http.get("/files").json()["uploads"]] == [new["uri"]]


def test_a_file_that_is_damaged_in_the_store_is_not_read(service: Service) -> None:
    kept = upload(service, "rows.jsonl", ROW * 20).json()
    [stored] = service.settings.artifacts_path.glob("uploads/*/*/rows.jsonl")
    stored.write_bytes(stored.read_bytes().replace(b"4", b"5", 1))
    job = service.run(service.request(kept["uri"]))
    assert (job["state"], job["error"]["type"]) == ("failed", "dataset-damaged")
    assert f"has other bytes ({20 * len(ROW)}) in the artifact store than were uploaded" in job["error"]["detail"]
    upload(service, "rows.jsonl", ROW * 20)
    job = service.run(service.request(kept["uri"]))
    assert job["state"] == "succeeded", job["error"]


def test_a_job_whose_file_is_gone_says_so(service: Service) -> None:
    kept = upload(service, "rows.jsonl", ROW).json()
    assert service.http.delete(f"/files/{kept['id']}").status_code == 204
    job = service.run(service.request(kept["uri"]))
    assert job["state"] == "failed"
    assert "is not there any more: upload the file again" in job["error"]["detail"]


class TestInABucket:
    """The artifact store is an S3 bucket: nothing of an uploaded file stays on the API's disk."""

    @pytest.fixture
    def server(self) -> Iterator[S3Server]:
        with s3_server() as server:
            server.client.create_bucket(Bucket="kept")
            yield server

    @pytest.fixture(autouse=True)
    def passing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where a file lies while it arrives."""
        directory = tmp_path / "passing"
        directory.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(directory))
        return directory

    @pytest.fixture
    def service_settings(self, service_settings: Settings, server: S3Server) -> Settings:
        return service_settings.model_copy(update={"artifacts_url": "s3://kept/spice", "s3_endpoint_url": server.url})

    def test_a_file_is_kept_read_and_deleted(self, service: Service, server: S3Server, passing: Path) -> None:
        content = ROW * 20
        kept = upload(service, "rows.jsonl", content).json()
        key = f"spice/uploads/{DEFAULT_PROJECT}/{hashlib.sha256(content).hexdigest()}/rows.jsonl"
        assert server.keys("kept", "spice/uploads") == [key]
        assert server.client.get_object(Bucket="kept", Key=key)["Body"].read() == content
        assert service.http.get("/files").json()["uploads"] == [kept]
        assert upload(service, "rows.jsonl", content).json()["uri"] == kept["uri"], "the same file again"
        job = service.run(service.request(kept["uri"]))
        assert (job["state"], job["error"]) == ("succeeded", None)
        assert job["result"]["fingerprint"] == f"sha256:{kept['id']}"
        told = problem_of(upload(service, "more.jsonl", ROW * (MOST // len(ROW) + 1)), 413)
        assert str(MOST) in told["detail"]
        assert service.http.delete(f"/files/{kept['id']}").status_code == 204
        assert server.keys("kept", "spice/uploads") == []
        assert files_below(passing) == []

    def test_a_bucket_that_takes_nothing_is_told_and_nothing_is_kept(
        self, service: Service, server: S3Server, passing: Path
    ) -> None:
        server.refuse = lambda call: (403, "AccessDenied") if call.writes else None
        told = problem_of(upload(service, "rows.jsonl", ROW), 503)
        assert "s3://kept/spice" in told["detail"]
        server.reset()
        assert service.http.get("/files").json()["uploads"] == []
        assert files_below(passing) == [], "what had arrived is gone"
