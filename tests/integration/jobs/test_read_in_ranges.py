"""A large dataset is read in ranges by all workers, once, and the job selects as if one worker had read it."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from app.core.storage import CORPORA, pieces_prefix
from app.housekeeping.retention import UNFINISHED_S, sweep
from tests.integration.conftest import ROWS, real_rows
from tests.integration.settled import assert_settled, final, wait_for

if TYPE_CHECKING:
    from app.core.settings import Settings
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

RANGE_BYTES = 4000


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    """The rows of the tests are several ranges."""
    return service_settings.model_copy(update={"read_range_bytes": RANGE_BYTES})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first byte of each range that this process reads."""
    from workers.stages import pieces  # noqa: PLC0415 - it imports torch

    first, original = list[int](), pieces.read_piece

    def noting(snapshot: Any, tokenizer: Any, ranges: Any, *rest: Any, **how: Any) -> Any:
        first.append(ranges[0].start)
        return original(snapshot, tokenizer, ranges, *rest, **how)

    monkeypatch.setattr(pieces, "read_piece", noting)
    return first


def resources(service: Service) -> Any:
    return service.http.app.state.resources  # type: ignore[attr-defined]


def pieces_of(service: Service) -> list[str]:
    names = (stored.name for stored in resources(service).artifacts.list(CORPORA))
    return sorted(name for name in names if not name.endswith("/cut.safetensors"))


def picks(service: Service, job: dict[str, Any]) -> list[int]:
    return list(service.http.get(job["links"]["subset"]).json()["indices"])


def on_another_machine(service: Service) -> None:
    """What has been read is in the artifact store alone."""
    shutil.rmtree(service.settings.cache_path / "corpora")


def test_a_machine_that_helps_has_no_copy_of_the_dataset(service: Service, workers: Processes) -> None:
    """The machine that plans the job has one; the other reads ranges, puts the samples together and sketches them."""
    planning, helping = service.directory / "planning", service.directory / "helping"
    workers.start(worker_queues=("gradients",), cache_dir=helping)
    workers.start(worker_queues=("selection",), cache_dir=planning)
    job = wait_for(service, service.submit(service.request()), final)
    assert job["state"] == "succeeded", job["error"]
    (copy,) = (planning / "datasets").glob("*.jsonl")
    assert copy.stat().st_size == (service.directory / "train.jsonl").stat().st_size
    assert not [path for path in (helping / "datasets").rglob("*") if path.is_file()]
    assert [path.name for path in (helping / "corpora").iterdir()] == [pieces_of(service)[0].split("/")[1]]


def test_columns_that_come_late_are_read_as_one_worker_reads_them(
    service: Service, workers: Processes, read: list[int]
) -> None:
    rows = [*real_rows(), *({**row, "system": "Be brief."} for row in real_rows(5))]
    uri = service.write_dataset(rows)
    apart = service.run(service.request(uri))
    assert apart["state"] == "succeeded", apart["error"]
    assert len(read) == 2 * len(set(read)), "with and without the column"
    workers.start(read_range_bytes=1 << 30, cache_dir=service.directory / "elsewhere")
    whole = wait_for(service, service.submit(service.request(uri)), final)
    assert whole["result"]["gradients"] == {"computed": 0, "reused": ROWS + 5}
    assert picks(service, whole) == picks(service, apart)


def test_each_range_is_read_once_and_serves_other_jobs_and_machines(service: Service, read: list[int]) -> None:
    body = service.request()
    jobs = [service.submit(body), service.submit(body)]
    service.work()
    first, second = (service.job(job_id) for job_id in jobs)
    assert first["state"] == second["state"] == "succeeded", (first["error"], second["error"])
    size = len((service.directory / "train.jsonl").read_bytes())
    assert len(read) == len(set(read)) == len(pieces_of(service)) >= size // RANGE_BYTES - 1
    on_another_machine(service)
    third = service.run(body)
    assert third["state"] == "succeeded"
    assert len(read) == len(pieces_of(service))
    assert picks(service, first) == picks(service, second) == picks(service, third)
    assert third["result"]["gradients"] == {"computed": 0, "reused": ROWS}


def test_two_workers_read_what_one_that_reads_the_whole_does(service: Service, workers: Processes) -> None:
    body = service.request()
    workers.start()
    workers.start()
    apart = wait_for(service, service.submit(body), final)
    assert apart["state"] == "succeeded", apart["error"]
    told = service.http.get(f"/jobs/{apart['id']}/events").json()["items"]
    stages = [event["data"]["stage"] for event in told if event["kind"] == "stage"]
    assert stages == ["reading", "gradients", "selecting", "publishing"], "a job never goes back"
    workers.stop()
    workers.start(read_range_bytes=1 << 30, cache_dir=service.directory / "elsewhere")
    whole = wait_for(service, service.submit(body), final)
    assert whole["result"]["sketches"] == apart["result"]["sketches"], "the sketches are of the same tokens"
    assert picks(service, whole) == picks(service, apart)


def test_a_worker_that_dies_over_a_range_costs_no_job(service: Service, workers: Processes) -> None:
    dying = workers.start(("at", "range", "die"), lease_s=1.0)
    job_id = service.submit(service.request())
    dying.wait()
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    resources(service).artifacts.remove_all(CORPORA)
    assert_settled(service)


def test_a_damaged_piece_is_read_again(service: Service) -> None:
    body = service.request()
    first = service.run(body)
    name = pieces_of(service)[1]
    content = bytearray(resources(service).artifacts.read(name))
    content[-1] ^= 1
    resources(service).artifacts.write(name, bytes(content))
    on_another_machine(service)
    second = service.run(body)
    assert second["state"] == "succeeded", second["error"]
    assert picks(service, second) == picks(service, first)
    assert name not in pieces_of(service)


def test_rows_that_cannot_be_used_fail_the_job_as_they_do_otherwise(service: Service) -> None:
    uri = service.write_dataset([{"prompt": "a", "response": "the cat " * 20}] * 100 + [{"prompt": "a"}] * 100)
    failed = service.run(service.request(uri))
    assert (failed["state"], failed["error"]["type"]) == ("failed", "dataset-too-many-rejected")
    assert "100 of 200" in failed["error"]["detail"]


def test_old_pieces_go_unless_a_job_reads_them(service: Service) -> None:
    service.run(service.request())
    keys = {name.split("/")[1] for name in pieces_of(service)}
    stores = resources(service)
    assert sweep(stores.sessions, stores.artifacts, service.settings) == []
    later = time.time() + UNFINISHED_S + 60
    assert sweep(stores.sessions, stores.artifacts, service.settings, now=later) == [pieces_prefix(*keys)]
    assert pieces_of(service) == []
