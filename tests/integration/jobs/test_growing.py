"""Pools that grow: a job computes the gradients of rows that the project has not seen, and no others."""

from __future__ import annotations

import random
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.integration.conftest import real_rows
from tests.integration.settled import SHARD_ROWS, final, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

pytestmark = pytest.mark.small_shards

Row = dict[str, str]

POOL = 200


def rows_of(count: int, first: int = 0) -> list[Row]:
    """So many rows, each another one by a number at its beginning."""
    real = real_rows()
    return [
        {**real[i % len(real)], "prompt": f"{i}: {real[i % len(real)]['prompt']}"} for i in range(first, first + count)
    ]


def changed(rows: list[Row], how: str) -> tuple[list[Row], int]:
    """Another pool made of the rows, and how many of its rows are new."""
    if how == "appended":
        return [*rows, *rows_of(2, POOL)], 2
    if how == "shuffled-and-appended":
        grown = [*rows, *rows_of(2, POOL + 2)]
        random.Random(0).shuffle(grown)  # noqa: S311 - an order, no secret
        return grown, 2
    if how == "removed":
        return rows[:50] + rows[90:], 0
    if how == "edited":
        return [*rows[:7], {**rows[7], "response": "Quite another one."}, *rows[8:]], 1
    return [*rows_of(3, 2 * POOL), *rows[::3], *rows[::3]], 3


HOW = ["appended", "shuffled-and-appended", "removed", "edited", "other-dataset-with-duplicates"]


@pytest.fixture
def seen(service: Service) -> list[Row]:
    """The rows of a pool that a job has run over."""
    rows = rows_of(POOL)
    job = service.run(service.request(service.write_dataset(rows)))
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["gradients"] == {"computed": POOL, "reused": 0}
    return rows


def test_another_pool_of_known_rows_costs_the_gradients_of_the_new_ones(service: Service, seen: list[Row]) -> None:
    for how in HOW:
        rows, new = changed(seen, how)
        body = service.request(service.write_dataset(rows, f"{how}.jsonl"))
        again = service.run(body)
        assert again["state"] == "succeeded", again["error"]
        assert again["result"]["gradients"] == {"computed": new, "reused": len(rows) - new}, how
        if how.endswith("appended"):
            assert again["result"]["gradients"]["computed"] <= 0.015 * len(rows)
        if how.startswith("shuffled"):
            assert_like_a_fresh_run(service, body, again)


def assert_like_a_fresh_run(service: Service, body: dict[str, Any], grown: dict[str, Any]) -> None:
    """Picks and figures are those of a service that has never seen a row of the pool."""
    sketches = service.settings.artifacts_path / "sketches"
    aside = sketches.with_name("aside")
    sketches.rename(aside)
    fresh = service.run(body)
    assert fresh["result"]["gradients"]["reused"] == 0
    found, expected = (service.http.get(job["links"]["subset"]).json() for job in (grown, fresh))
    assert found["indices"] == expected["indices"]
    for name in ("marginal_gains", "conflicts", "log_det"):
        assert np.allclose(found[name], expected[name], rtol=0, atol=1e-5), name
    shutil.rmtree(sketches)
    aside.rename(sketches)


def test_what_methods_need_besides_sketches_is_found_by_row_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings and ratings: 1% more rows, all shuffled, cost the forward passes of the new rows."""
    from workers.stages import features  # noqa: PLC0415 - it imports torch

    passes: dict[str, list[int]] = {"embeddings": [], "rating_probabilities": []}

    def counted(name: str) -> Callable[..., Any]:
        compute = getattr(features, name)

        def counting(*given: Any) -> Any:
            rows = given[1] if name == "embeddings" else given[2]
            passes[name].append(len(rows))
            return compute(*given)

        return counting

    for name in passes:
        monkeypatch.setattr(features, name, counted(name))
    target = {"dataset": {"uri": service.write_dataset(rows_of(4, 1000), "target.jsonl")}}
    asked: dict[str, Any] = {
        "filters": {},
        "target": target,
        "baselines": ["rds_plus", "selectit"],
        "budget": {"count": 9},
    }
    rows = rows_of(100)
    first = service.run(service.request(service.write_dataset([*rows, *rows[:3]]), **asked))
    assert first["state"] == "succeeded", first["error"]
    assert {name: sum(some) for name, some in passes.items()} == {"embeddings": 104, "rating_probabilities": 100}
    for some in passes.values():
        some.clear()
    grown = [*rows, *rows_of(1, 100)]
    random.Random(0).shuffle(grown)  # noqa: S311 - an order, no secret
    body = service.request(service.write_dataset(grown, "grown.jsonl"), **asked)
    again = service.run(body)
    assert again["state"] == "succeeded", again["error"]
    assert passes == {"embeddings": [1], "rating_probabilities": [1]}
    shutil.rmtree(service.settings.artifacts_path / "sketches")
    fresh = service.run(body)
    found, expected = (
        {one["method"]: one["log_det"] for one in service.http.get(job["links"]["league"]).json()["methods"]}
        for job in (again, fresh)
    )
    assert found == pytest.approx(expected, abs=1e-4)


def test_equal_rows_are_computed_once_and_may_all_be_picked(service: Service) -> None:
    rows = rows_of(20) * 3
    job = service.run(service.request(service.write_dataset(rows), budget={"fraction": 1.0}, filters={}))
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["gradients"] == {"computed": 20, "reused": 40}
    assert sorted(service.http.get(job["links"]["subset"]).json()["indices"]) == list(range(60))


def test_other_settings_are_other_sketches(service: Service, seen: list[Row]) -> None:
    body = service.request(service.write_dataset(seen))
    body["gradients"]["seed"] = 1
    assert service.run(body)["result"]["gradients"]["computed"] == POOL
    body["gradients"] |= {"seed": 0, "warmup_steps": 2}  # a warm-up is of the whole dataset, and so are its sketches
    assert service.run(body)["result"]["gradients"]["computed"] == POOL
    body["dataset"]["uri"] = service.write_dataset(seen[1:])
    assert service.run(body)["result"]["gradients"]["computed"] == POOL - 1


def test_pools_that_overlap_are_computed_once_but_for_a_shard(service: Service, workers: Processes) -> None:
    pools = [rows_of(200), rows_of(200, 100), rows_of(40, 400)]
    jobs = [
        service.submit(service.request(service.write_dataset(rows, f"{number}.jsonl")))
        for number, rows in enumerate(pools)
    ]
    workers.start()
    workers.start()
    done = [wait_for(service, job_id, final) for job_id in jobs]
    assert [job["state"] for job in done] == ["succeeded"] * 3, done
    computed = sum(job["result"]["gradients"]["computed"] for job in done)
    assert 340 <= computed <= 340 + SHARD_ROWS, "two workers at one moment may take a shard of the same rows each"
    assert all(sum(job["result"]["gradients"].values()) == job["result"]["rows_total"] for job in done)


def test_a_small_job_does_not_wait_for_a_large_one(service: Service, workers: Processes) -> None:
    """Of rows that a large pool has too, a shard's worth or less is computed twice: sooner done than waited for."""
    large = service.submit(service.request(service.write_dataset(rows_of(400), "large.jsonl")))
    workers.start(("slow_shards", "0.3"))
    wait_for(service, large, lambda job: job["stage"] == "gradients")
    workers.start()
    began = time.monotonic()
    body = service.request(service.write_dataset(rows_of(10, 380), "small.jsonl"))
    small = service.submit({**body, "priority": "high"})
    done = wait_for(service, small, final)
    assert (done["state"], done["result"]["gradients"]["computed"]) == ("succeeded", 10), done
    assert not final(service.job(large)), time.monotonic() - began


def test_what_changed_since_another_job_is_told_by_row(service: Service) -> None:
    rows = rows_of(60)
    grown = [*rows_of(10, 100), *rows[5:]]
    first, second = (
        service.run(service.request(service.write_dataset(pool, f"{len(pool)}.jsonl"), budget={"count": 12}))
        for pool in (rows, grown)
    )
    old, new = (
        [pool[index] for index in service.http.get(job["links"]["subset"]).json()["indices"]]
        for pool, job in ((rows, first), (grown, second))
    )
    url = second["links"]["subset"]
    told = service.http.get(url, params={"since": first["id"]}).json()
    assert (told["job_id"], told["since"]) == (second["id"], first["id"])
    assert [grown[index] for index in told["added"]] == [row for row in new if row not in old]
    assert [rows[index] for index in told["removed"]] == [row for row in old if row not in new]
    assert told["kept"] == sum(row in old for row in new)
    same = service.http.get(url, params={"since": second["id"]}).json()
    assert (same["added"], same["removed"], same["kept"]) == ([], [], 12)
    assert service.http.get(url, params={"since": first["id"], "rows": "true"}).status_code == 422
    assert service.http.get(url, params={"since": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1"}).status_code == 404
    (service.settings.artifacts_path / "jobs" / first["id"] / "picks.digests").unlink()
    gone = service.http.get(url, params={"since": first["id"]})
    assert (gone.status_code, gone.json()["type"]) == (404, "rows-gone")


def test_half_precision_takes_half_the_space_and_is_apart_from_full(service: Service) -> None:
    body = service.request()
    body["gradients"]["sketch_dim"] = 512
    full = service.run(body)
    body["gradients"]["store"] = "float16"
    half = service.run(body)
    assert half["result"]["gradients"] == full["result"]["gradients"]
    assert half["result"]["log_det"] == pytest.approx(full["result"]["log_det"], rel=0.01)
    everything = service.settings.artifacts_path / "sketches"
    sizes = [
        sum(path.stat().st_size for path in (everything / job["result"]["sketches"]).glob("shard-*.safetensors"))
        for job in (full, half)
    ]
    assert 0.5 < sizes[1] / sizes[0] < 0.6
