"""A job may be limited: it stops at most one shard later, and keeps or uses what is there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import ROWS, real_rows
from tests.integration.settled import SHARD_ROWS, assert_settled, final, wait_for

if TYPE_CHECKING:
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

pytestmark = pytest.mark.small_shards


def limited(service: Service, **limits: Any) -> dict[str, Any]:
    return {**service.request(), "limits": limits}


def tokens_of_a_shard(service: Service) -> int:
    """Of the largest one: the mean would let a shard of long rows pass for two."""
    told = service.run(service.request())["result"]
    return int(told["tokens"] * SHARD_ROWS / ROWS)


def test_a_job_stops_at_most_one_shard_beyond_its_tokens_and_keeps_what_is_there(service: Service) -> None:
    each = tokens_of_a_shard(service)
    body = limited(service, gradient_tokens=each)
    body["gradients"]["seed"] = 1
    job = service.run(body)
    assert (job["state"], job["error"]["type"]) == ("failed", "limit-reached")
    assert job["error"]["errors"][0]["field"] == "limits.gradient_tokens"
    assert job["limits"] == {"gradient_tokens": each, "seconds": None, "on_limit": "stop"}
    again = service.run({**body, "limits": None})
    kept = again["result"]["gradients"]
    assert again["result"]["limited"] is None
    assert SHARD_ROWS <= kept["reused"] <= 2 * SHARD_ROWS
    assert kept["computed"] == ROWS - kept["reused"]


def test_a_job_selects_from_what_is_scored_and_says_so(service: Service) -> None:
    body = limited(service, gradient_tokens=1, on_limit="select")
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    said = job["result"]["limited"]
    assert (said["limit"], said["value"]) == ("gradient_tokens", 1)
    assert said["used"] > 1
    assert 0 < said["rows_scored"] <= SHARD_ROWS
    assert said["rows_scored"] + said["rows_not_scored"] == ROWS == job["result"]["rows_total"]
    assert job["result"]["rows_usable"] == said["rows_scored"]
    assert job["result"]["selected"] == said["rows_scored"] // 5
    assert job["result"]["gradients"] == {"computed": said["rows_scored"], "reused": 0}
    assert job["result"]["rejected"] == []
    picks = service.http.get(f"{job['links']['subset']}?format=json").json()["indices"]
    whole = service.run(body)["result"]["limited"]
    assert whole["rows_scored"] > said["rows_scored"], "a later job goes on from there"
    assert len(set(picks)) == job["result"]["selected"]
    assert_settled(service)


def test_an_estimate_is_of_what_the_limits_let_the_job_do(service: Service) -> None:
    """Before the job: as many rows, tokens and picks as it then has, and what its limits come to, by field."""
    for on_limit, state in (("select", "succeeded"), ("stop", "failed")):
        body = limited(service, gradient_tokens=1, on_limit=on_limit) | {"timeout_s": 1e-3}
        body["gradients"]["seed"] = {"select": 1, "stop": 2}[on_limit]
        told = service.estimate(body).json()
        job = service.run(body | {"timeout_s": None})
        assert job["state"] == state, job["error"]
        rows = told["gradient_rows"]
        assert rows in {SHARD_ROWS, ROWS % SHARD_ROWS}, "one shard, which may be the last"
        assert 0 < told["gradient_tokens"] < told["tokens"]
        said = {one["field"]: one["message"] for one in told["problems"]}
        assert said["limits.gradient_tokens"].startswith(f"is 1, and leaves {ROWS - rows} rows without gradients")
        assert "the job takes about" in said["timeout_s"]
        if state == "failed":
            assert job["error"]["type"] == "limit-reached"
            assert f"{told['gradient_tokens']} were used for {rows} of {ROWS} rows" in job["error"]["detail"]
            assert told["selected"] == 0
            continue
        assert job["result"]["limited"]["used"] == told["gradient_tokens"]
        assert job["result"]["limited"]["rows_not_scored"] == ROWS - rows
        assert job["result"]["selected"] == told["selected"]


def test_a_count_beyond_what_is_scored_names_the_limit_before_and_after(service: Service) -> None:
    body = limited(service, gradient_tokens=1, on_limit="select")
    body["selection"]["budget"], body["gradients"]["seed"] = {"count": SHARD_ROWS + 1}, 3
    told = service.estimate(body)
    job = service.run(body)
    [error] = job["error"]["errors"]
    assert (job["error"]["type"], error["field"]) == ("budget-too-large", "selection.budget.count")
    assert error["message"].startswith(f"is {SHARD_ROWS + 1}, and limits.gradient_tokens lets ")
    assert f" of {ROWS} rows be scored" in error["message"]
    assert (told.status_code, told.json()["errors"]) == (422, [error])


def test_other_methods_rank_what_is_scored_and_nothing_else(service: Service) -> None:
    """What methods need of rows besides sketches is kept with the shards that have them; the target's is complete."""
    body = limited(service, gradient_tokens=1, on_limit="select")
    target = {"dataset": {"uri": service.write_dataset(real_rows(6), "target.jsonl")}}
    others = ["selectit", "rds_plus", "tsds", "ifd", "length"]
    body["selection"] |= {"method": "less", "baselines": others, "target": target, "filters": {}}
    body["selection"]["budget"] = {"count": 4}
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    scored = job["result"]["limited"]["rows_scored"]
    assert 4 < scored <= SHARD_ROWS
    table = pq.read_table(io.BytesIO(service.http.get(job["links"]["scores"]).content)).to_pydict()
    assert len(table["row"]) == scored
    for name in ("influence", "rating", "similarity"):
        assert np.isfinite(table[name]).all(), name
    best = np.array(table["row"])[np.argsort(-np.array(table["influence"]), kind="stable")[:4]]
    assert service.http.get(f"{job['links']['subset']}?format=json").json()["indices"] == best.tolist()
    league = service.http.get(job["links"]["league"]).json()["methods"]
    assert {one["method"] for one in league} == {"less", *others}


def test_no_shard_is_begun_after_the_seconds_are_over(service: Service, workers: Processes) -> None:
    workers.start(("slow_shards", "0.7"))
    stopped = wait_for(service, service.submit(limited(service, seconds=1.0)), final)
    assert (stopped["state"], stopped["error"]["type"]) == ("failed", "limit-reached"), stopped
    body = limited(service, seconds=1.0, on_limit="select")
    body["gradients"]["seed"] = 1
    job = wait_for(service, service.submit(body), final)
    assert job["state"] == "succeeded", job["error"]
    said = job["result"]["limited"]
    assert (said["limit"], said["value"]) == ("seconds", 1.0)
    assert 0 < said["rows_scored"] < ROWS
    assert job["result"]["gradients"] == {"computed": said["rows_scored"], "reused": 0}
    assert said["used"] < 1.0 + 3 * 0.7, "a shard later"
    workers.stop()
    assert_settled(service, succeeded=1, failed="limit-reached")


def test_a_limit_that_says_nothing_is_refused(service: Service) -> None:
    for limits in ({}, {"gradient_tokens": 0}, {"seconds": -1.0}):
        answer = service.http.post("/jobs", json={**service.request(), "limits": limits})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith("limits")
    parted = {**service.request(partitions=2), "limits": {"seconds": 5, "on_limit": "select"}}
    assert "leave selection.partitions out" in service.http.post("/jobs", json=parted).json()["detail"]
