"""Lengths, filters, suspects and the figures of rows, from the request to the downloads, on real servers."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import ROWS, real_rows
from tests.integration.problems import fields_of

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, which select from the same sketches."""
    return shared_service


def scores_of(service: Service, job: dict[str, Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(
        io.BytesIO(service.http.get(job["links"]["scores"]).content)
    ).to_pydict()
    return found


def picks_of(service: Service, job: dict[str, Any]) -> list[int]:
    found: list[int] = service.http.get(job["links"]["subset"]).json()["indices"]
    return found


def done(service: Service, **selection: Any) -> dict[str, Any]:
    found = service.run(service.request(**selection))
    assert found["state"] == "succeeded", found["error"]
    return found


def test_the_default_keeps_what_looks_wrong_from_being_picked_and_names_it(service: Service) -> None:
    job = done(service, baselines=["random"])
    result = job["result"]
    assert result["normalize"] == "unit"
    assert result["rows_usable"] == ROWS
    filtered = service.http.get(job["links"]["rejected"]).json()["filtered"]
    assert {one["reason"]: len(one["rows"]) for one in filtered} == result["filtered"]
    assert result["filtered"] == {"suspicion": ROWS // 2}
    gone = {row for one in filtered for row in one["rows"]}
    picked = picks_of(service, job)
    assert not gone & set(picked)

    scores = scores_of(service, job)
    assert scores["row"] == list(range(ROWS))
    assert {row for row, why in zip(scores["row"], scores["filtered"], strict=True) if why} == gone
    assert {row for row, one in zip(scores["row"], scores["picked"], strict=True) if one} == set(picked)
    assert np.isfinite(scores["ifd"]).all()
    ends = [end for end in scores["end_loss"] if end is not None]
    assert 0 < len(ends) < ROWS, "rows that are cut at max_length have none"
    assert min(ends) > 0
    assert all(loss > 0 for loss in scores["loss"])
    assert all(-1 <= cosine <= 1 for cosine in scores["cosine"])
    assert result["suspects"]["rows"] == sum(scores["suspect"])

    page = service.http.get(job["links"]["suspects"], params={"limit": 7}).json()
    assert [item["rank"] for item in page["items"]] == list(range(1, 8))
    suspicions = [item["suspicion"] for item in page["items"]]
    assert suspicions == sorted(scores["suspicion"], reverse=True)[:7]
    rest = service.http.get(job["links"]["suspects"], params={"limit": 200, "cursor": page["next_cursor"]}).json()
    assert [item["rank"] for item in rest["items"]] == list(range(8, ROWS + 1))
    assert (rest["listed"], rest["next_cursor"]) == (ROWS, None)
    listed = {item["index"]: item for item in [*page["items"], *rest["items"]]}
    assert sorted(listed) == scores["row"]
    assert [index for index, item in listed.items() if item["picked"]]
    text = page["items"][0]["messages"][-1]["content"]
    found = service.http.get(job["links"]["suspects"], params={"query": text[:150]}).json()["items"]
    assert page["items"][0] in found

    rows = service.http.get(f"/jobs/{job['id']}/rows", params={"limit": 200}).json()["items"]
    assert [row["suspect"] for row in rows] == [listed[row["index"]]["suspect"] for row in rows]


def test_lengths_and_filters_are_tried_on_sketches_that_are_there(service: Service) -> None:
    """Alpha is 1 / median squared norm of what was selected from: it tells the lengths."""
    raw = done(service, normalize="none", filters={})
    norms = np.array(scores_of(service, raw)["norm"])
    assert raw["result"]["filtered"] == {}
    assert raw["result"]["alpha"] == pytest.approx(1 / np.median(norms**2), rel=1e-3)
    clipped = done(service, normalize={"clip": 0.25}, filters={}, representative=0)
    unit = done(service, normalize="unit", filters={"loss": {"max_quantile": 0.5}}, representative=0)
    assert clipped["result"]["sketches_reused"]
    assert unit["result"]["sketches_reused"]
    quarter = np.quantile(norms, 0.25)
    assert clipped["result"]["alpha"] == pytest.approx(1 / quarter**2, rel=1e-3), "most have the same length"
    assert clipped["result"]["normalize"] == {"clip": 0.25}
    assert unit["result"]["alpha"] == pytest.approx(1, rel=1e-3)
    losses = np.array(scores_of(service, unit)["loss"])
    assert unit["result"]["filtered"] == {"loss_max_quantile": ROWS // 2}
    assert losses[picks_of(service, unit)].max() <= np.quantile(losses, 0.5, method="inverted_cdf")
    assert len({raw["result"]["log_det"], clipped["result"]["log_det"], unit["result"]["log_det"]}) == 3


def test_representative_picks_are_of_a_metric_that_the_result_names(service: Service) -> None:
    """The metric makes directions that many rows share longer, and alpha, 1 / median squared norm, smaller."""
    default, plain = done(service, filters={}), done(service, filters={}, representative=0)
    assert default["result"]["representative"] == 0.1
    assert plain["result"]["representative"] == 0
    assert plain["result"]["alpha"] == pytest.approx(1, rel=1e-3)
    assert default["result"]["alpha"] != pytest.approx(1, rel=1e-3)
    own = done(service, normalize="none", filters={})
    assert own["result"]["representative"] == 0, "lengths as they are drown it"
    parted = done(service, filters={}, partitions=2)
    assert parted["result"]["alpha"] == pytest.approx(default["result"]["alpha"], rel=1e-6), "parts share the metric"


def test_a_budget_of_all_rows_takes_all(service: Service) -> None:
    job = done(service, budget={"fraction": 1.0})
    assert (job["result"]["selected"], job["result"]["filtered"]) == (ROWS, {})


def test_parts_select_from_the_same_candidates(service: Service) -> None:
    parted = done(service, partitions=2, normalize="clip", filters={"loss": {"max_quantile": 0.8}})
    whole = done(service, normalize="clip", filters={"loss": {"max_quantile": 0.8}})
    assert parted["result"]["filtered"] == whole["result"]["filtered"] == {"loss_max_quantile": ROWS // 5}
    assert parted["result"]["alpha"] == whole["result"]["alpha"]
    bound = whole["result"]["certificate"]["optimum_upper_bound"]
    assert 0.5 * whole["result"]["log_det"] < parted["result"]["log_det"] <= bound
    scores = scores_of(service, parted)
    dropped = {row for row, why in zip(scores["row"], scores["filtered"], strict=True) if why}
    assert not dropped & set(picks_of(service, parted))


def test_the_largest_gradients_are_those_before_they_were_made_equal(service: Service) -> None:
    job = done(service, method="grad_norm", normalize="unit", filters={}, budget={"count": 5})
    norms = np.array(scores_of(service, job)["norm"])
    assert picks_of(service, job) == np.argsort(-norms, kind="stable")[:5].tolist()


def test_without_the_loss_of_the_response_alone_the_loss_decides(service: Service) -> None:
    body = service.request()
    body["gradients"]["prompt_effect"] = False
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    scores = scores_of(service, job)
    assert set(scores["ifd"]) == {None}
    assert max(scores["loss"][row] for row in picks_of(service, job)) <= np.median(scores["loss"])
    assert job["result"]["suspects"]["rows"] == 0
    assert service.http.get(job["links"]["suspects"]).json()["items"][0]["ifd"] is None


def test_filters_that_leave_too_little_say_so(service: Service) -> None:
    nothing = service.run(service.request(filters={"loss": {"max": 0.0}}))
    assert nothing["error"]["type"] == "filters-leave-nothing"
    assert f"loss_max {ROWS}" in nothing["error"]["detail"]
    few = service.run(service.request(filters={"loss": {"max_quantile": 0.1}}, budget={"count": 30}))
    assert few["error"]["type"] == "budget-too-large"
    assert f"only {ROWS // 10} of {ROWS} usable rows pass selection.filters" in few["error"]["detail"]
    share = done(service, filters={"loss": {"max_quantile": 0.1}}, budget={"fraction": 0.5})
    assert share["result"]["selected"] == ROWS // 10


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("gradients", {"normalize": "unit"}, "gradients"),
        ("gradients", {"normalize": "none"}, "gradients"),
        ("selection", {"normalize": "l2"}, "selection.normalize"),
        ("selection", {"normalize": {"clip": 0}}, "selection.normalize"),
        ("selection", {"filters": {"ppl": {"max": 1}}}, "selection.filters.ppl"),
        ("selection", {"filters": {"ifd": {}}}, "selection.filters.ifd"),
    ],
)
def test_what_can_not_be_is_refused_by_field(service: Service, part: str, change: dict[str, Any], field: str) -> None:
    body = service.request()
    body[part] |= change
    assert field in fields_of(service.http.post("/jobs", json=body))


def test_a_filter_on_what_is_not_computed_is_refused(service: Service) -> None:
    body = service.request(filters={"ifd": {"max": 1}})
    body["gradients"]["prompt_effect"] = False
    answer = service.http.post("/jobs", json=body)
    assert answer.status_code == 422
    assert "selection.filters.ifd needs gradients.prompt_effect" in answer.text


def test_the_default_filter_makes_no_request_impossible(service: Service) -> None:
    """It drops half of the rows, but none that exclusion, an evaluation set, shares or tokens leave no other for."""
    rows = [{**row, "source": "rare" if number < 8 else "common"} for number, row in enumerate(real_rows())]
    dataset, few = service.write_dataset(rows, "sourced.jsonl"), ROWS - 20
    shared = [{"question": row["response"]} for row in rows[:20]]
    evaluation = {"dataset": {"uri": service.write_dataset(shared, "shared.jsonl")}, "ngram": 4}
    overlapping = {"decontaminate": evaluation}
    lost = service.run(service.request(dataset, budget={"count": 1}, constraints=overlapping, filters={}))
    for constraints, count in (
        ({"exclude": list(range(20))}, few),
        (overlapping, ROWS - lost["result"]["filtered"]["decontaminate"]),
        ({"sources": {"rare": {"min": 0.5}}}, 16),
        ({"sources": {"common": {"max": 0.2}}}, 10),
        ({"exclude": list(range(10, 20)), "sources": {"rare": {"min": 0.25}, "common": {"max": 0.75}}}, 32),
    ):
        job = service.run(service.request(dataset, budget={"count": count}, constraints=constraints))
        assert job["state"] == "succeeded", (constraints, job["error"])
        assert job["result"]["selected"] == count

    scores = scores_of(service, service.run(service.request(dataset, budget={"count": 1})))
    doubtful = {"exclude": [row for row, why in zip(scores["row"], scores["filtered"], strict=True) if not why]}
    refused = service.run(service.request(dataset, budget={"tokens": 2}, constraints=doubtful))
    shortest = int(re.search(r"the shortest row has (\d+) tokens", refused["error"]["detail"])[1])  # type: ignore[index]
    job = service.run(service.request(dataset, budget={"tokens": shortest}, constraints=doubtful))
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["tokens_selected"] == shortest
