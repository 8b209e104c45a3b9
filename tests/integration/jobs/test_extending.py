"""A job that keeps the picks of another and adds to them, over a pool that has changed, on real servers."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.test_growing import Row, rows_of
from tests.integration.jobs.test_purpose import done, subset_of
from tests.integration.problems import fields_of

if TYPE_CHECKING:
    from tests.integration.conftest import Service

POOL, PICKS, MORE = 40, 6, 4


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """Each test has jobs of its own over rows that the module shares."""
    return shared_service


@pytest.fixture(scope="module")
def earlier(service: Service) -> tuple[dict[str, Any], list[int]]:
    """A job over the pool, and its picks."""
    job = done(service, service.request(service.write_dataset(rows_of(POOL), "pool.jsonl"), budget={"count": PICKS}))
    return job, subset_of(service, job)["indices"]


def extending(service: Service, job: dict[str, Any], pool: list[Row], **selection: Any) -> dict[str, Any]:
    body = service.request(
        service.write_dataset(pool, f"{uuid.uuid4()}.jsonl"), **{"budget": {"count": MORE}, **selection}
    )
    return {**body, "extends": job["id"]}


def test_picks_are_kept_in_their_order_and_more_are_added_from_a_shuffled_pool_that_has_grown(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, picks = earlier
    rows = rows_of(POOL)
    grown = [*rows, *rows_of(8, 500)]
    random.Random(3).shuffle(grown)  # noqa: S311 - an order, no secret
    extended = done(service, extending(service, job, grown))
    found = subset_of(service, extended)
    assert [grown[index] for index in found["indices"][:PICKS]] == [rows[index] for index in picks]
    assert len(set(found["indices"])) == PICKS + MORE
    result = extended["result"]
    assert extended["extends"] == job["id"]
    assert result["gradients"]["computed"] == 8
    told = result["extension"]
    assert (told["job"], told["rows_kept"], told["rows_added"]) == (job["id"], PICKS, MORE)
    assert (told["rows_gone"], told["gone"]) == (0, [])
    assert told["log_det_before"] == pytest.approx(found["log_det"][PICKS - 1])
    assert told["log_det_after"] == pytest.approx(found["log_det"][-1]) == pytest.approx(result["log_det"])
    assert told["log_det_gained"] == pytest.approx(sum(found["marginal_gains"][PICKS:]))


def test_picks_that_were_deleted_or_edited_are_counted_and_named(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, picks = earlier
    rows = rows_of(POOL)
    deleted, edited = picks[1], picks[4]
    rows[edited] = {**rows[edited], "response": "Something else, whatever it was."}
    pool = [row for index, row in enumerate(rows) if index != deleted]
    extended = done(service, extending(service, job, pool))
    told = extended["result"]["extension"]
    assert (told["rows_kept"], told["rows_added"]) == (PICKS - 2, MORE)
    assert (told["rows_gone"], told["gone"]) == (2, [deleted, edited])
    kept = [pool[index] for index in subset_of(service, extended)["indices"][: PICKS - 2]]
    assert kept == [rows_of(POOL)[index] for index in picks if index not in (deleted, edited)]


def test_kept_rows_pass_filters_and_stand_beside_constraints_fractions_tokens_and_parts(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, picks = earlier
    rows = rows_of(POOL)
    further = next(index for index in range(POOL) if index not in picks)
    filters = {"loss": {"max_quantile": 0.05}}
    limits = {"include": [picks[2], further]}
    first = done(service, extending(service, job, rows, filters=filters, constraints=limits, budget={"count": 2}))
    assert subset_of(service, first)["indices"][: PICKS + 1] == [*picks, further]
    assert first["result"]["extension"]["rows_added"] == 2
    tenth = done(service, extending(service, job, rows, budget={"fraction": 0.1}, partitions=2))
    assert subset_of(service, tenth)["indices"][:PICKS] == picks
    assert tenth["result"]["extension"]["rows_added"] == POOL // 10
    all_of_them = done(service, extending(service, job, rows, budget={"fraction": 1.0}, filters={}))
    assert all_of_them["result"]["extension"]["rows_added"] == POOL - PICKS
    alone = job["result"]["tokens_selected"]
    bought = done(service, extending(service, job, rows, budget={"tokens": 200}, filters={}))
    assert subset_of(service, bought)["indices"][:PICKS] == picks
    assert 0 < bought["result"]["tokens_selected"] - alone <= 200
    assert bought["result"]["extension"]["rows_added"] > 0


def test_an_extension_may_be_extended(service: Service, earlier: tuple[dict[str, Any], list[int]]) -> None:
    job, picks = earlier
    second = done(service, extending(service, job, rows_of(POOL)))
    third = done(service, extending(service, second, rows_of(POOL)))
    assert subset_of(service, third)["indices"][:PICKS] == picks
    assert third["result"]["extension"]["rows_kept"] == PICKS + MORE


def test_what_keeping_forbids_fails_with_the_numbers(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, picks = earlier
    failed = service.run(extending(service, job, rows_of(POOL), constraints={"exclude": [picks[3]]}))
    assert failed["error"]["type"] == "constraints-impossible"
    assert f"excludes row {picks[3]}" in failed["error"]["detail"]
    failed = service.run(extending(service, job, rows_of(POOL), budget={"count": POOL - PICKS + 1}))
    assert failed["error"]["type"] == "budget-too-large"
    assert f"{PICKS} of them are kept by extends" in failed["error"]["detail"]


def test_a_job_that_can_not_be_extended_is_refused_by_field(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, _ = earlier
    pool = rows_of(POOL)

    def refused(body: dict[str, Any]) -> dict[str, str]:
        return fields_of(service.http.post("/jobs", json=body))

    nobody = {"id": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1"}
    assert "no such job" in refused(extending(service, nobody, pool))["extends"]
    waiting = {"id": service.submit(service.request(service.write_dataset(pool)))}
    assert "queued" in refused(extending(service, waiting, pool))["extends"]
    service.http.post(f"/jobs/{waiting['id']}/cancel")
    assert "cancelled" in refused(extending(service, waiting, pool))["extends"]
    assert service.http.delete(f"/jobs/{waiting['id']}").status_code == 204
    assert "no such job" in refused(extending(service, waiting, pool))["extends"]
    shorter = extending(service, job, pool)
    shorter["model"]["max_length"] = 64
    shorter["dataset"]["train_on"] = "last"
    said = refused(shorter)
    assert set(said) == {"model.max_length", "dataset.train_on"}
    assert said["model.max_length"].startswith("is 64, and 128 in job")
    for further in (
        {"limits": {"seconds": 5, "on_limit": "select"}},
        {"selection": {"budget": {"count": 1}, "fisher": "reference"}},
        {"schedule": {"windows": 10, "keep": 2}, "selection": {}},
    ):
        assert "extends" in " ".join(refused({**extending(service, job, pool), **further}).values()), further
    proof = {"job": done(service, extending(service, job, pool))["id"], "held_out": {"fraction": 0.2}}
    assert "extends job" in fields_of(service.http.post("/proofs", json=proof))["job"]


def test_picks_that_are_not_kept_any_more_fail_the_job(service: Service) -> None:
    job = done(service, service.request(service.write_dataset(rows_of(20, 700)), budget={"count": 3}))
    (service.settings.artifacts_path / "jobs" / job["id"] / "picks.digests").unlink()
    failed = service.run(extending(service, job, rows_of(20, 700)))
    assert (failed["error"]["type"], failed["error"]["errors"][0]["field"]) == ("extended-job-gone", "extends")


def test_a_key_sent_again_with_another_job_to_extend_is_refused(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    job, _ = earlier
    body, headers = extending(service, job, rows_of(POOL)), {"Idempotency-Key": str(uuid.uuid4())}
    first = service.http.post("/jobs", json=body, headers=headers)
    assert service.http.post("/jobs", json=body, headers=headers).json()["id"] == first.json()["id"]
    again = service.http.post("/jobs", json={**body, "extends": None}, headers=headers)
    assert again.json()["type"] == "idempotency-key-reused"


def test_limits_are_about_all_picks_those_that_are_kept_among_them(
    service: Service, earlier: tuple[dict[str, Any], list[int]]
) -> None:
    """Of 7 picks 3 or 4 are of each source; of the one that the budget counts no share of both would be possible."""
    job, picks = earlier
    rows = [
        {**row, "source": "ab"[(picks.index(number) if number in picks else number) % 2]}
        for number, row in enumerate(rows_of(POOL))
    ]
    limits = {"sources": {"a": {"min": 0.4, "max": 0.5}, "b": {"min": 0.4, "max": 0.6}}, "include": picks[:2]}
    body = extending(service, job, rows, budget={"count": 1}, constraints=limits)
    assert set(fields_of(service.http.post("/jobs", json={**body, "extends": None}))) == {"selection"}
    registered = service.http.post("/datasets", json={"uri": body["dataset"]["uri"]}).json()
    service.work()
    for dataset in (body["dataset"], {"id": registered["id"]}):
        found = subset_of(service, done(service, {**body, "dataset": dataset}))["indices"]
        assert found[:PICKS] == picks
        assert sorted(rows[row]["source"] for row in found) == ["a"] * 3 + ["b"] * 4
