"""Validators, caching, compression, ranges and the API's version in the answers."""

from __future__ import annotations

import gzip
import resource
from typing import TYPE_CHECKING, Any

import pytest

from app.core.storage import checksums
from app.jobs import service as jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service

FORMATS = ("json", "ndjson", "csv", "parquet")


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, most of which ask for files of finished jobs."""
    return shared_service


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    """The URL of a job that has succeeded, and is not to be changed."""
    return _finished(service)


@pytest.fixture
def own(service: Service) -> str:
    """The URL of a job that has succeeded, and that the test may change or damage."""
    return _finished(service)


def _finished(service: Service) -> str:
    job = service.run(service.request())
    assert job["state"] == "succeeded", job["error"]
    return str(job["links"]["self"])


def files_of(service: Service, url: str) -> Path:
    """The directory of a job's files in the artifact store."""
    return service.settings.artifacts_path / url.removeprefix("/")


def tag(answer: Any) -> dict[str, str]:
    return {"If-None-Match": answer.headers["ETag"]}


def test_polling_costs_nothing_until_something_has_changed(service: Service) -> None:
    job_id = service.submit(service.request())
    for path in (f"/jobs/{job_id}", "/jobs", "/jobs?state=queued"):
        first = service.http.get(path)
        assert first.headers["ETag"].startswith('W/"')
        assert first.headers["Cache-Control"] == "private, no-cache"
        again = service.http.get(path, headers=tag(first))
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert service.http.get(path, headers={"If-None-Match": '"x", W/"y"'}).status_code == 200
        service.http.patch(f"/jobs/{job_id}", json={"name": path})
        changed = service.http.get(path, headers=tag(first))
        assert changed.status_code == 200
        assert changed.headers["ETag"] != first.headers["ETag"]
    dataset = service.http.post("/datasets", json={"uri": service.request()["dataset"]["uri"]}).json()["id"]
    for path in (f"/datasets/{dataset}", "/datasets"):
        assert service.http.get(path, headers=tag(service.http.get(path))).status_code == 304


def test_a_heartbeat_changes_no_tag_and_progress_does(service: Service) -> None:
    from app.core.db.tables import Job  # noqa: PLC0415
    from app.core.lifecycle import leases  # noqa: PLC0415 - after the service's settings are in place

    job_id = service.submit(service.request())
    sessions = service.http.app.state.resources.sessions  # type: ignore[attr-defined]
    with sessions() as session:
        lease = leases.claim(session, Job, session.get_one(Job, job_id).id, 1, 60)
        assert lease is not None
        first = service.http.get(f"/jobs/{job_id}")
        leases.extend(session, lease, 60)
        assert service.http.get(f"/jobs/{job_id}", headers=tag(first)).status_code == 304
        leases.extend(session, lease, 60, progress={"done": 1, "total": 2, "unit": "rows", "rate": None, "eta_s": None})
        assert service.http.get(f"/jobs/{job_id}", headers=tag(first)).status_code == 200
        leases.hand_back(session, lease)  # or other jobs over its rows would wait until it ends


@pytest.mark.parametrize(
    "part",
    ["subset", "subset?format=parquet", "subset?rows=true", "curve", "conflicts", "rejected", "statistics", "rows"],
)
def test_a_finished_result_is_kept_by_caches(service: Service, finished: str, part: str) -> None:
    first = service.http.get(f"{finished}/{part}")
    assert first.status_code == 200
    assert first.headers["ETag"].startswith('"')
    assert "immutable" in first.headers["Cache-Control"]
    assert "private" in first.headers["Cache-Control"]
    again = service.http.get(f"{finished}/{part}", headers=tag(first))
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("part", ["figures", "figures/curve", "report"])
def test_what_is_drawn_is_asked_for_again_but_not_drawn_again(service: Service, own: str, part: str) -> None:
    first = service.http.get(f"{own}/{part}")
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "private, no-cache")
    again = service.http.get(f"{own}/{part}", headers=tag(first))
    assert (again.status_code, again.content) == (304, b"")
    service.http.patch(own, json={"name": "renamed"})  # which a report shows
    assert service.http.get(f"{own}/{part}", headers=tag(first)).status_code == 200


ABSENT = {
    "/jobs/{job_id}/comparison",
    "/datasets/{dataset_id}/previews/{preview_id}",
    "/estimates/{estimate_id}",
    "/proofs/{proof_id}/report",
}
"""There is no other job and no preview, no estimate was made, and the proof has not ended."""


def test_what_has_a_tag_is_announced_with_304_and_nothing_else_is(service: Service, finished: str) -> None:
    dataset = service.http.post("/datasets", json={"uri": service.request()["dataset"]["uri"]}).json()["id"]
    job_id = finished.rpartition("/")[2]
    proof = service.http.post("/proofs", json={"job": job_id, "arms": ["selected", "random"]}).json()["id"]
    ids = {"job_id": job_id, "dataset_id": dataset, "proof_id": proof, "name": "curve", "row": 0}
    tagged = 0
    for path, operations in service.http.get("/openapi.json").json()["paths"].items():
        if "get" not in operations or path in ABSENT:
            continue
        url = path.format(**ids)
        answer = service.http.get(url)
        assert answer.status_code == 200, (path, answer.text)
        assert ("ETag" in answer.headers) == ("304" in operations["get"]["responses"]), path
        if "ETag" in answer.headers:
            assert service.http.get(url, headers=tag(answer)).status_code == 304, path
            parameters = {one["name"].lower(): one["in"] for one in operations["get"]["parameters"]}
            assert parameters["if-none-match"] == "header", path
            tagged += 1
    assert tagged >= 8
    service.http.post(f"/proofs/{proof}/cancel")  # nobody is to train for it


def test_representations_have_tags_of_their_own(service: Service, finished: str) -> None:
    answers = [service.http.get(f"{finished}/subset?format={name}") for name in FORMATS]
    answers += [service.http.get(f"{finished}/curve", params={"points": points}) for points in (3, 5)]
    answers.append(service.http.get(f"{finished}/curve", params={"points": 3}, headers={"Accept-Encoding": "identity"}))
    assert len({answer.headers["ETag"] for answer in answers}) == len(answers)


def test_json_is_compressed_and_downloads_are_not(service: Service, finished: str) -> None:
    packed = service.http.get(finished, headers={"Accept-Encoding": "gzip"})
    plain = service.http.get(finished, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["Content-Length"]) < len(plain.content)
    assert len(gzip.compress(plain.content)) < len(plain.content)
    for name in FORMATS:
        answer = service.http.get(f"{finished}/subset?format={name}", headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in answer.headers, name


@pytest.mark.parametrize("query", [*(f"format={name}" for name in FORMATS), "rows=true"])
def test_a_download_that_broke_off_goes_on(service: Service, finished: str, query: str) -> None:
    url = f"{finished}/subset?{query}"
    whole = service.http.get(url)
    assert whole.headers["Accept-Ranges"] == "bytes"
    size, broken_off = len(whole.content), len(whole.content) // 3
    rest = service.http.get(url, headers={"Range": f"bytes={broken_off}-", "If-Range": whole.headers["ETag"]})
    assert rest.status_code == 206, rest.text
    assert rest.headers["Content-Range"] == f"bytes {broken_off}-{size - 1}/{size}"
    assert whole.content[:broken_off] + rest.content == whole.content
    assert rest.headers["ETag"] == whole.headers["ETag"]
    changed = service.http.get(url, headers={"Range": "bytes=1-", "If-Range": '"of another time"'})
    assert (changed.status_code, changed.content) == (200, whole.content)


@pytest.mark.parametrize("query", ["format=csv", "rows=true"])
def test_a_range_beyond_the_end_is_a_problem_that_tells_the_size(service: Service, finished: str, query: str) -> None:
    url = f"{finished}/subset?{query}"
    size = len(service.http.get(url).content)
    answer = service.http.get(url, headers={"Range": f"bytes={size}-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "range-not-satisfiable"
    assert f"has {size} bytes" in answer.json()["detail"]


@pytest.mark.parametrize("unreadable", ["", "bytes", "bytes=", "bytes=x-", "bytes=9-3", "rows=0-5", "\xdf=0-1"])
def test_a_range_that_cannot_be_read_is_ignored(service: Service, finished: str, unreadable: str) -> None:
    for query in ("format=ndjson", "rows=true"):
        url = f"{finished}/subset?{query}"
        answer = service.http.get(url, headers={"Range": unreadable.encode("latin-1")})
        assert (answer.status_code, answer.content) == (200, service.http.get(url).content)


def damage(file: Path, how: str) -> None:
    """Flip a bit of a file's middle byte, or cut the file in half."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content[: len(content) // 2] if how == "half" else content))


@pytest.mark.parametrize("how", ["flipped", "half"])
def test_a_damaged_subset_file_is_made_again(service: Service, own: str, how: str) -> None:
    url = f"{own}/subset?format=csv"
    whole = service.http.get(url).content
    assert service.http.get(url, headers={"Range": "bytes=5-"}).content == whole[5:]
    (file,) = files_of(service, own).rglob("subset-*.csv")
    damage(file, how)
    assert service.http.get(url, headers={"Range": "bytes=5-"}).content == whole[5:]
    assert file.read_bytes() == whole


def test_damage_far_into_a_file_breaks_the_answer_off_and_leaves_other_parts_whole(
    service: Service, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "PIECE_BYTES", 100)
    url = f"{own}/subset?format=csv"
    whole = service.http.get(url).content
    assert len(whole) > 450
    assert service.http.get(url, headers={"Range": "bytes=0-"}).content == whole
    (file,) = files_of(service, own).rglob("subset-*.csv")
    content = bytearray(whole)
    content[350] ^= 1
    file.write_bytes(bytes(content))
    assert service.http.get(url, headers={"Range": "bytes=50-299"}).content == whole[50:300]
    broken = service.http.get(url, headers={"Range": "bytes=0-"})
    assert whole.startswith(broken.content)
    assert len(broken.content) < int(broken.headers["Content-Length"]) == len(whole)
    assert service.http.get(url, headers={"Range": "bytes=0-"}).content == whole, "it is made again"


def test_a_range_while_the_cache_takes_no_file_is_told(service: Service, own: str) -> None:
    (service.settings.cache_path / "x").parent.mkdir(parents=True, exist_ok=True)
    moved = service.settings.cache_path.rename(service.settings.cache_path.with_name("moved"))
    service.settings.cache_path.write_text("no directory")
    answer = service.http.get(f"{own}/subset?format=csv", headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
    assert "without Range" in answer.json()["detail"]
    service.settings.cache_path.unlink()
    moved.rename(service.settings.cache_path)


def test_every_answer_tells_the_version_of_the_api_and_is_what_it_says_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        service.http.get(path) for path in ("/", "/web/page.css", "/jobs", "/jobs/x", "/healthz", "/openapi.json")
    ]
    assert not any("Connection" in answer.headers for answer in answers)

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(jobs, "list_jobs", fails)
    failed = service.http.get("/jobs")
    assert (failed.status_code, failed.headers["Connection"]) == (500, "close")
    for answer in (*answers, service.http.get("/nothing"), failed):
        assert answer.headers["Spice-Api-Version"] == "1"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_range_of_a_subset_that_the_cache_cannot_hold_is_told_with_the_path(service: Service, own: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # as on a disk that is full
    try:
        answer = service.http.get(f"{own}/subset?format=csv", headers={"Range": "bytes=5-"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
    assert str(service.settings.cache_path) in answer.json()["detail"]
    assert "free space there" in answer.json()["detail"]
    whole = service.http.get(f"{own}/subset?format=csv").content
    assert service.http.get(f"{own}/subset?format=csv", headers={"Range": "bytes=5-"}).content == whole[5:]
