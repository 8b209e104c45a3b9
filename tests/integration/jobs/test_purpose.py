"""Selections for a purpose, from the request to the downloads, on real servers with the tiny model."""

from __future__ import annotations

import io
import re
from collections import Counter
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import ROWS, real_rows
from tests.integration.problems import fields_of

if TYPE_CHECKING:
    from tests.integration.conftest import Service

SOURCES = ("code", "chat", "maths")


def sourced_rows() -> list[dict[str, Any]]:
    """Real rows with a source each, some marked, and two pairs of the same text but for case and spaces."""
    rows: list[dict[str, Any]] = [
        {
            **row,
            "origin": SOURCES[number % 3],
            "keep": "yes" if number in (5, 40) else "no",
            "kind": ("even", "odd")[number % 2],
        }
        for number, row in enumerate(real_rows())
    ]
    rows[50] |= {"prompt": f"  {rows[0]['prompt'].upper()}", "response": rows[0]["response"].replace(" ", "  ")}
    rows[51] |= {"prompt": rows[1]["prompt"], "response": rows[1]["response"]}
    return rows


def sourced(service: Service, **selection: Any) -> dict[str, Any]:
    """A job over them, with no filter of its own."""
    body = service.request(service.write_dataset(sourced_rows(), "sourced.jsonl"), **{"filters": {}, **selection})
    body["dataset"]["source_column"] = "origin"
    return body


def done(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    found = service.run(body)
    assert found["state"] == "succeeded", found["error"]
    return found


def subset_of(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    return dict(service.http.get(job["links"]["subset"]).json())


def scores_of(service: Service, job: dict[str, Any]) -> dict[str, list[Any]]:
    table = pq.read_table(io.BytesIO(service.http.get(job["links"]["scores"]).content))
    found: dict[str, list[Any]] = table.to_pydict()
    return found


def assert_shares(picks: list[int], limits: dict[str, dict[str, float]]) -> None:
    """By the request's words alone, for the rows that came out."""
    held = Counter(sourced_rows()[row]["origin"] for row in picks)
    for source in SOURCES:
        share = limits.get(source, limits.get("*", {}))
        assert ceil(round(share.get("min", 0) * len(picks), 6)) <= held[source]
        assert held[source] <= floor(round(share.get("max", 1) * len(picks), 6))


ALL_AT_ONCE = {
    "sources": {"code": {"min": 0.5}, "*": {"max": 0.3}},
    "include": {"column": "keep"},
    "exclude": [2, 3],
    "near_duplicates": {"cosine": 0.999, "text": True},
}


@pytest.mark.parametrize("partitions", [None, 3])
def test_constraints_hold_together_and_say_what_they_cost(service: Service, partitions: int | None) -> None:
    job = done(
        service,
        sourced(
            service,
            constraints=ALL_AT_ONCE,
            budget={"count": 20},
            partitions=partitions,
            baselines=["random", "grad_norm"],
        ),
    )
    picks, result = subset_of(service, job)["indices"], job["result"]
    assert (len(picks), len(set(picks))) == (20, 20)
    assert_shares(picks, ALL_AT_ONCE["sources"])
    assert picks[:2] == [5, 40], "what must be in comes first, in its order"
    assert not {2, 3} & set(picks)
    assert result["filtered"] == {"near_duplicates_text": 2}
    filtered = service.http.get(job["links"]["rejected"]).json()["filtered"]
    assert filtered == [{"reason": "near_duplicates_text", "rows": [50, 51]}]

    assert "The request excludes the row." in service.http.get(f"/jobs/{job['id']}/rows/2/why").json()["words"]

    met = result["constraints"]
    assert set(met["each"]) == {"sources", "include", "exclude", "near_duplicates"}
    assert 0 < result["certificate"]["value"] <= 1
    assert result["partitions_guarantee"] is None, "proven where the best part's set may be returned too"
    assert result["log_det"] <= result["certificate"]["optimum_upper_bound"]
    assert met["log_det_lost"] >= -0.05 * result["log_det"]
    code = met["sources"]["code"]
    assert (code["least"], code["most"]) == (10, 20)
    assert sum(source["picked"] for source in met["sources"].values()) == 20
    free = done(service, sourced(service, constraints={"near_duplicates": {"text": True}}, budget={"count": 20}))
    assert free["result"]["sketches_reused"]
    lost = free["result"]["log_det"] - result["log_det"]
    assert met["log_det_lost"] == pytest.approx(lost, rel=1e-6), "the greedy without them, of as many rows"
    assert free["result"]["constraints"] is None, "a dropped duplicate is a filter's work"
    kept_out = set(subset_of(service, free)["indices"]) - set(picks)
    assert sum(met["kept_out"].values()) == len(kept_out)
    assert set(result["baselines"]) | set(result["baselines_left_out"]) == {"random", "grad_norm"}


def test_a_token_budget_is_kept_with_shares_and_an_early_stop(service: Service) -> None:
    """The tokens of the rows are told by the job that picks all of them."""
    whole = done(service, sourced(service, budget={"count": ROWS}))["result"]
    assert whole["tokens_selected"] == whole["tokens"]
    half = whole["tokens"] // 2
    job = done(service, sourced(service, budget={"tokens": half}))
    result = job["result"]
    assert 0.9 * half < result["tokens_selected"] <= half
    assert result["stop_reason"] == "budget"
    assert set(result["constraints"]["each"]) == {"tokens"}
    assert 0.5 < result["certificate"]["value"] <= 1

    limits = {"sources": {"code": {"min": 0.4, "max": 0.5}, "*": {"max": 0.4}}}
    for further in ({}, {"partitions": 2}, {"early_stop_ratio": 0.3}):
        job = done(service, sourced(service, budget={"tokens": half}, constraints=limits, **further))
        picks = subset_of(service, job)["indices"]
        assert_shares(picks, limits["sources"])
        assert 0 < job["result"]["tokens_selected"] <= half
        assert job["result"]["selected"] == len(picks)


def write_target(service: Service, rows: list[dict[str, Any]], name: str = "target.jsonl") -> dict[str, Any]:
    return {"uri": service.write_dataset(rows, name)}


def test_a_target_draws_the_picks_and_another_costs_no_gradient_of_the_pool(service: Service) -> None:
    rows = sourced_rows()
    plain = done(service, sourced(service, budget={"count": 12}))
    target = {"dataset": write_target(service, [row for row in rows if row["origin"] == "code"][:8])}
    job = done(
        service, sourced(service, budget={"count": 12}, target={**target, "weight": 0.95, "group_column": "kind"})
    )
    result, reached = job["result"], job["result"]["target"]
    assert result["gradients"] == {"computed": 0, "reused": ROWS}
    assert reached["gradients"] == {"computed": 0, "reused": 8}, "the pool has these rows"
    assert (reached["rows"], reached["sketched"], reached["unusable"]) == (8, 8, {})
    assert reached["directions"] == 8
    assert reached["covered"] > reached["covered_random"]
    cosines = np.array(scores_of(service, job)["target_cosine"])
    picks = subset_of(service, job)["indices"]
    assert reached["cosine"] == pytest.approx(cosines[picks].mean(), abs=1e-6)
    assert reached["cosine_random"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert reached["cosine"] > cosines[subset_of(service, plain)["indices"]].mean()
    assert {name: group["rows"] for name, group in reached["groups"].items()} == {"even": 4, "odd": 4}
    least = min(reached["groups"], key=lambda name: reached["groups"][name]["covered_per_direction"])
    assert reached["worst_group"] == least

    asked = [{**row, "prompt": f"Tell me: {row['prompt']}"} for row in real_rows()[30:36]]
    other = {"dataset": write_target(service, asked, "other.jsonl")}
    both = done(
        service, sourced(service, budget={"count": 12}, target=other, protect={**target, "price": 5.0}, partitions=2)
    )
    assert both["result"]["gradients"]["computed"] == 0
    assert both["result"]["target"]["gradients"] == {"computed": 6, "reused": 0}
    assert both["result"]["protect"]["gradients"] == {"computed": 0, "reused": 8}, "the same rows by the same model"
    assert both["result"]["partitions_guarantee"] is None, "its loss knows the conflict penalty and no price"
    unprotected = done(service, sourced(service, budget={"count": 12}, target=other, partitions=2))
    scores = scores_of(service, both)
    pull = np.maximum(0, -np.array(scores["protect_cosine"]))
    assert pull[subset_of(service, both)["indices"]].sum() <= pull[subset_of(service, unprotected)["indices"]].sum()


def test_a_warmed_up_adapter_serves_the_target_too(service: Service) -> None:
    """Sketches of other weights would have nothing to do with those of the pool."""
    body = sourced(service, budget={"count": 6})
    body["gradients"] |= {"warmup_steps": 2, "preconditioner": "adam"}
    body["selection"]["target"] = {"dataset": write_target(service, sourced_rows()[:5])}
    job = done(service, body)
    cosines = np.array(scores_of(service, job)["target_cosine"])
    assert cosines[:5].mean() > cosines[5:].mean() + 0.1, "rows of the pool that are the target's point its way"


def test_a_token_budget_below_the_shortest_row_is_refused_once_a_worker_has_read_the_dataset(service: Service) -> None:
    """The service has no tokenizer: who read the registered dataset with that model before tells it."""
    made = service.http.post("/datasets", json={"uri": service.write_dataset(real_rows(), "plain.jsonl")}).json()
    service.work()

    def body(tokens: int, max_length: int = 128) -> dict[str, Any]:
        asked = service.request("file:///x.jsonl", budget={"tokens": tokens}, filters={})
        asked["model"]["max_length"] = max_length
        return {**asked, "dataset": {"id": made["id"]}}

    failed = service.run(body(3))
    assert (failed["state"], failed["error"]["errors"][0]["field"]) == ("failed", "selection.budget.tokens")
    shortest = int(re.search(r"the shortest row has (\d+) tokens", failed["error"]["detail"])[1])  # type: ignore[index]

    for tokens in (3, shortest - 1):
        refused = service.http.post("/jobs", json=body(tokens))
        said = fields_of(refused)["selection.budget.tokens"]
        assert refused.status_code == 422
        assert f"the token budget is {tokens}, the shortest row has {shortest} tokens" in said
        assert "raise the token budget" in said
        assert "the shortest row has" in fields_of(service.estimate(body(tokens)))["selection.budget.tokens"]
    job = done(service, body(shortest))
    assert job["result"]["tokens_selected"] == shortest

    assert service.http.post("/jobs", json=body(3, max_length=127)).status_code == 202, "not read in this way yet"
    extended = {**body(3), "extends": job["id"]}
    assert service.http.post("/jobs", json=extended).status_code == 202, "rows that are kept cost nothing"
    assert service.estimate(body(3, max_length=126)).status_code == 422
    assert service.http.post("/jobs", json=body(3, max_length=126)).status_code == 422, "an estimate has read it"


def test_a_sweep_and_reselections_tell_how_sure_the_answer_is(service: Service) -> None:
    sweep = {"conflict_penalty": [0, 0.1], "early_stop_ratio": [None, 0.9], "normalize": ["unit", "none"]}
    job = done(service, sourced(service, budget={"count": 10}, sweep=sweep, stability={"sketches": 2, "bootstrap": 4}))
    result = job["result"]
    assert len(result["sweep"]) == 8
    own = next(
        one
        for one in result["sweep"]
        if (one["conflict_penalty"], one["early_stop_ratio"], one["normalize"]) == (0.1, None, "unit")
    )
    assert (own["shared"], own["selected"]) == (1.0, 10)
    assert own["log_det"] == pytest.approx(result["log_det"], rel=1e-9)
    assert own["certificate"] == pytest.approx(result["certificate"]["value"], rel=1e-9)
    raw = done(service, sourced(service, budget={"count": 10}, normalize="none", conflict_penalty=0))["result"]
    other = next(
        one
        for one in result["sweep"]
        if (one["conflict_penalty"], one["early_stop_ratio"], one["normalize"]) == (0, None, "none")
    )
    assert other["log_det"] == pytest.approx(raw["log_det"], rel=1e-4), "as a job of its own at these lengths"
    assert other["alpha"] == pytest.approx(raw["alpha"], rel=1e-4)
    curves = service.http.get(f"/jobs/{job['id']}/statistics").json()["sweep"]
    assert [len(one["rank"]) for one in curves] == [one["selected"] for one in result["sweep"]]
    names = [one["name"] for one in service.http.get(f"/jobs/{job['id']}/figures").json()["figures"]]
    assert names[-2:] == ["sweep", "stability"]

    subset = subset_of(service, job)
    shares = dict(zip(subset["indices"], subset["stability"], strict=True))
    assert all(share is None or 0 <= share <= 1 for share in shares.values())
    assert result["stability"]["always"] == sum(share == 1 for share in shares.values())
    rows = service.http.get(f"/jobs/{job['id']}/rows", params={"limit": 50}).json()["items"]
    assert {row["index"]: row["stability"] for row in rows} == shares
    scores = scores_of(service, job)
    assert {row: scores["stability"][row] for row in shares} == shares
    lines = service.http.get(job["links"]["subset"], params={"format": "csv"}).text.splitlines()
    assert lines[0].split(",")[-1] == "stability"


IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"budget": {"tokens": 0}}, "selection.budget.tokens", "greater than or equal to 2"),
    ({"budget": {"tokens": 5, "count": 2}}, "selection.budget", "either fraction"),
    ({"constraints": {"sources": {"a": {"min": 0.7}, "b": {"min": 0.4}}}}, "selection.constraints", "1.1 together"),
    ({"constraints": {"sources": {"a": {"min": 0.7, "max": 0.4}}}}, "selection.constraints.sources.a", "above max"),
    ({"constraints": {"sources": {"*": {"min": 0.1}}}}, "selection.constraints", "max alone"),
    ({"constraints": {"include": [1, 2], "exclude": [2]}}, "selection.constraints", "row 2 is in include and"),
    ({"constraints": {"include": [1, 1]}}, "selection.constraints.include", "row numbers from 0"),
    ({"budget": {"count": 1}, "constraints": {"include": [1, 2]}}, "selection", "2 rows, more than budget.count 1"),
    (
        {
            "budget": {"count": 3},
            "constraints": {"sources": {name: {"min": 0.3} for name in "abc"} | {"d": {"min": 0.1}}},
        },
        "selection",
        "are 4 rows",
    ),
    ({"constraints": {"near_duplicates": {}}}, "selection.constraints.near_duplicates", "must have cosine"),
    ({"sweep": {}}, "selection.sweep", "each a list"),
    ({"sweep": {"alpha": [1]}, "method": "dpp"}, "selection", "method 'spice'"),
    ({"stability": {"sketches": 0, "bootstrap": 0}}, "selection.stability", "leave stability out"),
    ({"target": {"dataset": {"uri": "file:///etc/passwd"}}}, "selection.target.dataset.uri", "SPICE_ALLOWED_ROOTS"),
    ({"target": {"dataset": {"uri": "file:///x.jsonl"}, "weight": 1.5}}, "selection.target.weight", "less than"),
]
"""Selections that no data could meet, the field at fault, and some of what is said."""
UNMET: list[tuple[dict[str, Any], str, str]] = [
    ({"constraints": {"sources": {"poems": {"min": 0.1}}}}, "selection.constraints.sources.poems", "'code' (20)"),
    ({"constraints": {"include": {"column": "origin"}}}, "selection.constraints", "row 0 holds 'code'"),
    ({"budget": {"tokens": 3}}, "selection.budget.tokens", "the shortest row has"),
    (
        {"budget": {"count": 50}, "constraints": {"sources": {"code": {"max": 0.1}, "chat": {"max": 0.1}}}},
        "selection.constraints.sources",
        "budget is 50",
    ),
    ({"target": {"dataset": "empty"}}, "selection.target.dataset", "no rows"),
    ({"target": {"dataset": "unreadable"}}, "selection.target.dataset", "none of the 2 rows can be used"),
    ({"protect": {"dataset": "other", "group_column": "nation"}}, "selection.protect.group_column", "'nation'"),
]
"""Selections that the rows of these tests can't meet, likewise."""


UNMET_BY_SOURCES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"constraints": {"sources": {"poems": {"min": 0.1}}}},
        "selection.constraints.sources.poems",
        "no row has 'poems' in column 'origin'; the sources there are 'chat' (20), 'code' (20), 'maths' (20)",
    ),
    (
        {"budget": {"count": 50}, "constraints": {"sources": {"code": {"min": 0.5}}}},
        "selection.constraints.sources.code.min",
        "asks for 25 rows of 50, and the dataset has 20",
    ),
    (
        {"budget": {"count": 50}, "constraints": {"sources": {"code": {"max": 0.1}, "*": {"max": 0.2}}}},
        "selection.constraints.sources",
        "allow 25 rows together, and selection.budget.count is 50",
    ),
]
"""Shares that a registered dataset's sources can't meet, the field, and some of what is said."""


def test_what_no_data_could_meet_is_refused_by_field(service: Service) -> None:
    for selection, field, said in IMPOSSIBLE:
        answer = service.http.post("/jobs", json=service.request("file:///nowhere.jsonl", **selection))
        assert field in fields_of(answer), selection
        assert said in answer.text, selection


def test_what_the_data_can_not_meet_fails_the_job_with_field_and_numbers(service: Service) -> None:
    files = {"empty": [], "unreadable": [{"prompt": "a", "response": ""}] * 2, "other": real_rows()[:3]}
    others = {name: write_target(service, rows, f"{name}.jsonl") for name, rows in files.items()}
    for selection, field, said in UNMET:
        named = {
            role: {**part, "dataset": others[part["dataset"]]} for role, part in selection.items() if "dataset" in part
        }
        job = service.run(sourced(service, **selection | named))
        assert job["state"] == "failed", selection
        assert job["error"]["errors"][0]["field"] == field, selection
        assert said in job["error"]["detail"], selection


def test_an_estimate_tells_what_the_data_can_not_meet_before_the_job_is_submitted(service: Service) -> None:
    for selection, field, said in UNMET:
        if "dataset" in next(iter(selection.values())):
            continue
        told = service.estimate(sourced(service, **selection))
        assert told.status_code == 422, selection
        assert said in fields_of(told)[field], selection
    target = {"dataset": write_target(service, [{"prompt": "a", "response": ""}] * 2, "unreadable.jsonl")}
    told = service.estimate(sourced(service, target=target), "/jobs?dry_run=true")
    assert "none of the 2 rows can be used" in fields_of(told)["selection.target.dataset"]
    grouped = {"dataset": write_target(service, sourced_rows()[:5]), "group_column": "nation"}
    told = service.estimate(sourced(service, protect=grouped))
    assert "'nation'" in fields_of(told)["selection.protect.group_column"]
    fine = service.estimate(sourced(service, constraints=ALL_AT_ONCE, budget={"count": 20}))
    assert fine.status_code == 200, fine.text


def test_a_registered_dataset_that_could_not_be_read_serves_nothing(service: Service) -> None:
    """Without rows it can't be registered; a job that wants it for anything is told why."""
    made = service.http.post("/datasets", json={"uri": service.write_dataset([], "empty.jsonl")}).json()
    service.work()
    assert service.http.get(f"/datasets/{made['id']}").json()["state"] == "failed"
    for selection, field in (
        ({"target": {"dataset": {"id": made["id"]}}}, "selection.target.dataset.id"),
        ({"protect": {"dataset": {"id": made["id"]}}}, "selection.protect.dataset.id"),
        (
            {"constraints": {"decontaminate": {"dataset": {"id": made["id"]}}}},
            "selection.constraints.decontaminate.dataset.id",
        ),
    ):
        refused = service.http.post("/jobs", json=service.request(**selection))
        assert "no rows" in fields_of(refused)[field]


def test_what_a_registered_dataset_can_not_meet_is_refused_at_once(service: Service) -> None:
    made = service.http.post("/datasets", json={"uri": service.write_dataset(sourced_rows(), "sourced.jsonl")}).json()
    service.work()
    assert service.http.get(f"/datasets/{made['id']}").json()["state"] == "succeeded"

    def refused(**selection: Any) -> dict[str, str]:
        body = service.request("file:///x.jsonl", **selection) | {"dataset": {"id": made["id"]}}
        return fields_of(service.http.post("/jobs", json=body))

    assert "selection.constraints.include" in refused(constraints={"include": [ROWS]})
    assert "selection.constraints.exclude.column" in refused(constraints={"exclude": {"column": "bad"}})
    assert "selection.constraints.sources" in refused(constraints={"sources": {"code": {"max": 0.5}}})
    for selection, field, said in UNMET_BY_SOURCES:
        body = service.request("file:///x.jsonl", **selection)
        body["dataset"] = {"id": made["id"], "source_column": "origin"}
        assert said in fields_of(service.http.post("/jobs", json=body))[field], selection
    assert "selection.constraints.exclude" in refused(constraints={"exclude": [1]}, budget={"count": ROWS})
    target = {"dataset": {"id": made["id"], "columns": {"prompt": "question", "response": "response"}}}
    assert "selection.target.dataset.columns.prompt" in refused(target=target)
    assert "selection.protect.group_column" in refused(
        protect={"dataset": {"id": made["id"]}, "group_column": "nation"}
    )
    missing = "00000000-0000-4000-8000-000000000000"
    body = service.request("file:///x.jsonl", target={"dataset": {"id": missing}})
    assert service.http.post("/jobs", json=body).status_code == 404

    waiting = service.submit(sourced(service, target={"dataset": {"id": made["id"]}}))
    assert service.http.delete(f"/datasets/{made['id']}").status_code == 409, "an open job reads it"
    service.http.post(f"/jobs/{waiting}/cancel")
    assert service.http.delete(f"/datasets/{made['id']}").status_code == 204
