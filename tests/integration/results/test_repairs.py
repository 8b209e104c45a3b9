"""A published file that is damaged is never served, and a worker makes it again: the same bytes under the same tag."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from app.core.storage import checksums
from app.results import job_files
from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from datetime import timedelta

    from tests.integration.conftest import Service

FILES = {
    "subset?rows=true": "rows.jsonl",
    "rows": "excerpts.jsonl",
    "suspects": "suspects.jsonl",
    "scores": "scores.parquet",
    "report": "excerpts.jsonl",
}
"""What is asked for, and the file that it is of."""


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here."""
    return shared_service


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    """The URL of a job whose files the tests damage and have made again."""
    return url_of(service, service.request(baselines=["random"]))


def url_of(service: Service, body: dict[str, Any]) -> str:
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    return str(job["links"]["self"])


def file_of(service: Service, url: str, name: str) -> Path:
    """A job's file in the artifact store."""
    return service.settings.artifacts_path / url.removeprefix("/") / name


def damage(file: Path, how: str) -> None:
    """Flip a bit of a file's middle byte, cut the file in half, or leave nothing in it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    left = {"flipped": len(content), "half": len(content) // 2, "emptied": 0}[how]
    file.write_bytes(bytes(content[:left]))


@pytest.mark.parametrize("how", ["flipped", "half", "emptied"])
@pytest.mark.parametrize("path", FILES)
def test_a_damaged_file_is_made_again(service: Service, finished: str, path: str, how: str) -> None:
    url, file = f"{finished}/{path}", file_of(service, finished, FILES[path])
    before, job = service.http.get(url), service.http.get(finished).json()
    published = file.read_bytes()
    damage(file, how)
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": f"bytes={len(published) - 9}-"}):
        answer = service.http.get(url, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (503, "rows-in-repair"), answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert "ETag" not in answer.headers
    service.work()
    after = service.http.get(url)
    assert (after.status_code, after.content) == (200, before.content)
    assert after.headers["ETag"] == before.headers["ETag"]
    assert file.read_bytes() == published
    assert service.http.get(finished).json() == job, "nobody sees the job change"


def test_the_files_of_a_selection_in_parts_for_a_target_are_made_again(service: Service) -> None:
    target = {"dataset": {"uri": service.write_dataset(real_rows()[:6], "target.jsonl")}}
    body = service.request(partitions=2, target=target)
    finished = url_of(service, body)
    whole = {path: service.http.get(f"{finished}/{path}").content for path in FILES if path != "report"}
    for name in set(FILES.values()):
        damage(file_of(service, finished, name), "half")
    assert service.http.get(f"{finished}/rows").status_code == 503
    service.work()
    assert {path: service.http.get(f"{finished}/{path}").content for path in whole} == whole


@pytest.mark.parametrize("how", ["half", "another digit", "gone"])
def test_damaged_checksums_are_made_good(service: Service, finished: str, how: str) -> None:
    sums = file_of(service, finished, "checksums.rows.jsonl")
    url, published = f"{finished}/subset?rows=true", sums.read_bytes()
    before = service.http.get(url).content
    digit = published.rindex(b'"') - 1
    other = b"0" if published[digit : digit + 1] != b"0" else b"1"
    left = {
        "half": published[: len(published) // 2],
        "another digit": published[:digit] + other + published[digit + 1 :],
    }
    if how == "gone":
        sums.unlink()
    else:
        sums.write_bytes(left[how])
    assert service.http.get(url).status_code == 503
    service.work()
    assert (service.http.get(url).content, sums.read_bytes()) == (before, published)


@pytest.mark.parametrize("how", ["flipped", "half", "emptied"])
def test_damage_to_what_says_which_rows_were_picked_changes_no_pick(service: Service, finished: str, how: str) -> None:
    """A pick that could not be told would be new, or gone, without a word."""
    job = finished.rpartition("/")[2]
    url, file = f"{finished}/subset?since={job}", file_of(service, finished, "picks.digests")
    before, published = service.http.get(url), file.read_bytes()
    assert (before.json()["added"], before.json()["removed"], before.json()["kept"]) == ([], [], 12)
    damage(file, how)
    extending = service.run({**service.request(budget={"count": 2}), "extends": job})["error"]
    assert (extending["type"], extending["errors"][0]["field"]) == ("extended-job-damaged", "extends")
    assert f"GET /jobs/{job}/subset?since={job} has it made again" in extending["detail"]
    assert (service.http.get(url).status_code, service.http.get(url).json()["type"]) == (503, "rows-in-repair")
    service.work()
    assert (service.http.get(url).json(), file.read_bytes()) == (before.json(), published)


@pytest.mark.parametrize("how", ["flipped", "half", "emptied"])
def test_damage_to_what_sketches_are_of_fails_no_job(service: Service, finished: str, how: str) -> None:
    result = service.http.get(finished).json()["result"]
    key, told = result["sketches"], result["left_out"]
    assert told is not None
    damage(service.settings.artifacts_path / "sketches" / key / "scored.safetensors", how)
    job = service.run(service.request(seed=len(how)))
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["left_out"] is None, "nobody knows"
    grown = [*real_rows(), {"prompt": f"How is it {how}?", "response": "By a test."}]
    job = service.run(service.request(service.write_dataset(grown, f"{how}.jsonl")))
    assert job["result"]["left_out"] == told, "the next gradients say it again"


def test_a_directory_in_a_files_place_is_told(service: Service, finished: str) -> None:
    url, file = f"{finished}/scores", file_of(service, finished, "scores.parquet")
    kept = file.rename(file.with_suffix(".kept"))
    file.mkdir()
    answer = service.http.get(url)
    file.rmdir()
    kept.rename(file)
    assert answer.status_code == 503
    assert "(Is a directory): a directory has the file's name" in answer.json()["detail"]
    assert service.http.get(url).status_code == 200


def test_damage_far_into_the_rows_breaks_the_answer_off_and_is_made_good(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "PIECE_BYTES", 100)
    finished = url_of(service, service.request())
    url, file = f"{finished}/subset?rows=true", file_of(service, finished, "rows.jsonl")
    whole = service.http.get(url)
    content = bytearray(whole.content)
    content[350] ^= 1
    file.write_bytes(bytes(content))
    broken = service.http.get(url)
    assert (broken.status_code, whole.content.startswith(broken.content)) == (200, True)
    assert len(broken.content) < len(whole.content)
    service.work()
    rest = service.http.get(url, headers={"Range": f"bytes={len(broken.content)}-", "If-Range": broken.headers["ETag"]})
    assert broken.content + rest.content == whole.content, "a download that broke off goes on"


def test_why_a_row_was_passed_over_is_told_after_a_repair(service: Service, finished: str) -> None:
    picks = service.http.get(f"{finished}/subset").json()["indices"]
    row = next(row for row in range(1000) if row not in picks)
    before = service.http.get(f"{finished}/rows/{row}/why")
    for name in ("scores.parquet", "excerpts.jsonl"):
        damage(file_of(service, finished, name), "flipped")
    assert service.http.get(f"{finished}/rows/{row}/why").status_code == 503
    service.work()
    assert service.http.get(f"{finished}/rows/{row}/why").json() == before.json()


def test_where_the_sketches_are_gone_rows_are_made_again_and_figures_name_the_remedy(service: Service) -> None:
    body = service.request()
    body["gradients"]["sketch_dim"] = 48  # sketches that no other test's job has
    finished = url_of(service, body)
    sketches = service.http.get(finished).json()["result"]["sketches"]
    whole = service.http.get(f"{finished}/subset?rows=true").content
    for name in ("rows.jsonl", "scores.parquet"):
        damage(file_of(service, finished, name), "flipped")
    shutil.rmtree(service.settings.artifacts_path / "sketches" / sketches)
    assert service.http.get(f"{finished}/scores").status_code == 503
    service.work()
    assert service.http.get(f"{finished}/subset?rows=true").content == whole
    answer = service.http.get(f"{finished}/scores")
    assert (answer.status_code, answer.json()["type"]) == (500, "rows-damaged")
    assert "not in the artifact store any more" in answer.json()["detail"]
    assert "Submit the job again" in answer.json()["detail"]
    again = service.run(body)
    assert again["state"] == "succeeded", again["error"]


def test_a_dataset_that_has_changed_is_told_and_a_repair_is_tried_again_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = service.request(service.write_dataset([{"prompt": f"row {n}", "response": "yes"} for n in range(40)], "own"))
    body["dataset"]["format"] = "jsonl"
    finished, file = url_of(service, body), Path(urlsplit(body["dataset"]["uri"]).path)
    url, dataset = f"{finished}/subset?rows=true", file.read_bytes()
    before = service.http.get(url)
    damage(file_of(service, finished, "rows.jsonl"), "half")
    file.write_bytes(dataset.replace(b"yes", b"no"))
    shutil.rmtree(service.settings.cache_path / "datasets")
    assert service.http.get(url).status_code == 503
    service.work()
    for _ in range(2):  # it is not tried over and over
        answer = service.http.get(url)
        assert (answer.status_code, answer.json()["type"]) == (500, "rows-damaged")
        assert "register it again" in answer.json()["detail"]
        service.work()
    file.write_bytes(dataset)
    soon: timedelta = job_files.FAILED_FOR * 0
    monkeypatch.setattr(job_files, "FAILED_FOR", soon)
    assert service.http.get(url).status_code == 503
    service.work()
    after = service.http.get(url)
    assert (after.content, after.headers["ETag"]) == (before.content, before.headers["ETag"])
