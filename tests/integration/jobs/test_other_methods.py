"""The methods that people compare with, from the request to the league table, on real servers with the tiny model."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.core.db.tables import Proof, State
from tests.integration.conftest import ROWS, real_rows
from tests.integration.problems import fields_of

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service

UNTARGETED = ["length", "perplexity", "ifd", "selectit", "grad_match", "facility_location", "random"]
TARGETED = ["less", "rds_plus", "tsds"]


def with_sources(service: Service) -> str:
    rows = [{**row, "source": "code" if number % 3 else "chat"} for number, row in enumerate(real_rows())]
    return service.write_dataset(rows)


def target_of(service: Service) -> dict[str, Any]:
    rows = [{**row, "kind": f"kind {number % 2}"} for number, row in enumerate(real_rows(6))]
    return {"dataset": {"uri": service.write_dataset(rows, "target.jsonl")}, "group_column": "kind"}


def done(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    found = service.run(body)
    assert found["state"] == "succeeded", found["error"]
    return found


def scores_of(service: Service, job: dict[str, Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(
        io.BytesIO(service.http.get(job["links"]["scores"]).content)
    ).to_pydict()
    return found


def picks_of(service: Service, job: dict[str, Any]) -> list[int]:
    found: list[int] = service.http.get(job["links"]["subset"]).json()["indices"]
    return found


def test_one_request_puts_all_methods_side_by_side_and_keeps_what_they_need(service: Service) -> None:
    """Then a job by each method finds the features there, and its picks follow from the scores that all can read."""
    dataset, target = with_sources(service), target_of(service)
    common: dict[str, Any] = {"filters": {}, "target": target, "budget": {"count": 12}}
    job = done(service, service.request(dataset, **common, baselines=[*UNTARGETED, *TARGETED], baseline_repeats=2))
    league = service.http.get(job["links"]["league"]).json()["methods"]
    assert {one["method"] for one in league} == {"spice", *UNTARGETED, *TARGETED}
    assert [one["log_det"] for one in league] == sorted((one["log_det"] for one in league), reverse=True)
    by_name = {one["method"]: one for one in league}
    assert by_name["spice"]["requested"]
    assert by_name["spice"]["overlap"] == 1.0
    assert {name for name, one in by_name.items() if one["runs"] == 2} == {"random", "tsds", "perplexity"}
    for one in league:
        assert one["target_covered"] > 0
        assert -1 <= one["target_cosine"] <= 1
        assert sum(one["sources"].values()) == pytest.approx(1.0)
        assert one["verdicts"] == []

    scores = scores_of(service, job)
    assert scores["row"] == list(range(ROWS))
    for name in ("response_tokens", "rating", "influence", "similarity", "target_cosine"):
        assert np.isfinite(scores[name]).all(), name
    for method, column in (("selectit", "rating"), ("less", "influence"), ("length", "response_tokens")):
        again = done(service, service.request(dataset, **common, method=method))
        assert again["result"]["gradients"] == {"computed": 0, "reused": ROWS}
        assert picks_of(service, again) == np.argsort(-np.array(scores[column]), kind="stable")[:12].tolist()
    nearest = done(service, service.request(dataset, **common, method="rds_plus"))
    assert set(picks_of(service, nearest)[:6]) == set(range(6)), (
        "the target's rows are rows of the pool: each finds itself"
    )


def test_weights_are_in_the_subset_in_every_format_and_in_the_rows(service: Service) -> None:
    job = done(service, service.request(method="facility_location", filters={}, budget={"count": 7}))
    subset = service.http.get(job["links"]["subset"]).json()
    assert sum(subset["weights"]) == ROWS, "each row is stood for once"
    assert min(subset["weights"]) >= 1
    url = job["links"]["subset"]
    table = pq.read_table(io.BytesIO(service.http.get(url, params={"format": "parquet"}).content)).to_pydict()
    assert table["weight"] == subset["weights"]
    header, first, *_ = service.http.get(url, params={"format": "csv"}).text.splitlines()
    assert header.endswith(",weight")
    assert float(first.rsplit(",", 1)[1]) == subset["weights"][0]
    assert '"weight":' in service.http.get(url, params={"format": "ndjson"}).text
    rows = service.http.get(f"/jobs/{job['id']}/rows").json()["items"]
    assert [row["weight"] for row in rows] == subset["weights"]


@pytest.mark.parametrize("method", ["facility_location", "grad_match"])
def test_a_method_that_looks_no_further_than_the_budget_goes_on_where_constraints_forbid_its_rows(
    service: Service, method: str
) -> None:
    """Half of its picks without them are excluded, and of two thirds of the rows a third of the picks may come."""
    common: dict[str, Any] = {"method": method, "filters": {}, "normalize": "none"}
    free = picks_of(service, done(service, service.request(with_sources(service), **common, budget={"count": 6})))
    limits = {"exclude": free[:3], "sources": {"code": {"max": 0.34}}}
    job = done(service, service.request(with_sources(service), **common, budget={"count": 6}, constraints=limits))
    picks = picks_of(service, job)
    assert job["result"]["stop_reason"] == "budget"
    assert len(picks) == 6
    assert not set(free[:3]) & set(picks)
    assert sum(row % 3 > 0 for row in picks) <= 2
    few = service.run(service.request(with_sources(service), **common, budget={"tokens": 40}, constraints=limits))
    assert few["state"] == "succeeded" or few["error"]["type"] in ("constraints-impossible", "nothing-picked"), few


@pytest.mark.parametrize(
    ("selection", "field", "words"),
    [
        ({"method": "less"}, "selection", "send selection.target"),
        ({"baselines": ["tsds"]}, "selection", "tsds compares rows with those of a target"),
        ({"method": "length", "early_stop_ratio": 0.5}, "selection", "does not pick by them"),
        ({"method": "grad_match", "partitions": 3}, "selection", "partitions are for methods spice and fisher"),
        ({"method": "longest"}, "selection.method", "facility_location"),
        ({"method": "perplexity", "perplexity": "low"}, "selection.perplexity", "mid"),
    ],
)
def test_a_request_that_a_method_can_not_carry_out_is_refused(
    service: Service, selection: dict[str, Any], field: str, words: str
) -> None:
    response = service.http.post("/jobs", json=service.request(**selection))
    assert response.status_code == 422
    assert words in fields_of(response)[field]


def test_ifd_needs_the_loss_without_the_prompt(service: Service) -> None:
    body = service.request(baselines=["ifd"])
    body["gradients"]["prompt_effect"] = False
    response = service.http.post("/jobs", json=body)
    assert response.status_code == 422
    assert "needs gradients.prompt_effect" in response.text


EVALUATION = {
    "question": f"Somebody asks: {real_rows()[3]['response'].upper()} Is that so?",
    "answer": "Yes.",
}


def test_rows_that_share_text_with_an_evaluation_set_are_dropped_counted_and_named(service: Service) -> None:
    """Row 3's response, in capitals, is part of a question of the set; its second row is too short to find anything."""
    evaluation = {"dataset": {"uri": service.write_dataset([EVALUATION, {"question": "Why?"}], "evaluation.jsonl")}}
    body = service.request(
        filters={},
        budget={"fraction": 1.0},
        constraints={"decontaminate": {**evaluation, "ngram": 6}},
        baselines=["length"],
    )
    job = done(service, body)
    result = job["result"]
    named = service.http.get(job["links"]["rejected"]).json()["filtered"]
    dropped = next(one["rows"] for one in named if one["reason"] == "decontaminate")
    assert 3 in dropped
    assert result["filtered"] == {"decontaminate": len(dropped)}
    assert len(dropped) < ROWS / 2
    assert not set(dropped) & set(picks_of(service, job))
    assert result["decontamination"]["rows"] == 2
    assert result["decontamination"]["short"] == 1
    assert result["decontamination"]["runs"] > 0
    assert result["decontamination"]["fingerprint"].startswith("sha256:")

    told = service.estimate(body).json()
    assert (told["rows_overlapping"], told["selected"]) == (len(dropped), ROWS - len(dropped))
    assert "rows_overlapping" not in service.estimate(service.request()).json()

    body["selection"]["constraints"]["include"] = [3]
    refused = service.run(body)
    assert (refused["state"], refused["error"]["errors"][0]["field"]) == ("failed", "selection.constraints.include")
    assert "selection.constraints.include" in fields_of(service.estimate(body))
    evaluation["dataset"]["columns"] = {"text": "answers"}
    body["selection"]["constraints"] = {"decontaminate": evaluation}
    refused = service.run(body)
    assert "its columns are 'question', 'answer'" in refused["error"]["errors"][0]["message"]
    [said] = fields_of(service.estimate(body)).items()
    assert said == (
        "selection.constraints.decontaminate.dataset.columns.text",
        refused["error"]["errors"][0]["message"],
    )
    empty = {"decontaminate": {"dataset": {"uri": service.write_dataset([], "no-rows.jsonl")}}}
    body["selection"]["constraints"] = empty
    assert "no rows" in fields_of(service.estimate(body))["selection.constraints.decontaminate.dataset"]
    body["selection"]["constraints"] = {"decontaminate": {"dataset": {"uri": "file:///etc/passwd"}}}
    response = service.http.post("/jobs", json=body)
    assert "SPICE_ALLOWED_ROOTS" in fields_of(response)["selection.constraints.decontaminate.dataset.uri"]


def test_what_decontamination_and_exclusion_leave_must_do_for_the_budget(service: Service) -> None:
    """The evaluation set is the pool itself: that is told before a gradient is computed."""
    own = {"dataset": {"uri": service.write_dataset(real_rows(), "own.jsonl")}, "ngram": 2}
    excluded = {"exclude": list(range(ROWS - 5))}
    for selection, field, said in (
        ({"constraints": {"decontaminate": own}}, "decontaminate", f"leaves 0 usable rows ({ROWS} share text with"),
        ({"constraints": excluded, "budget": {"count": 6}}, "exclude", f"leaves 5 usable rows ({ROWS - 5} are excl"),
    ):
        body = service.request(**selection)
        told = fields_of(service.estimate(body))[f"selection.constraints.{field}"]
        assert said in told
        job = service.run(body)
        assert job["error"]["errors"][0]["message"] == told
        events = service.http.get(f"/jobs/{job['id']}/events").json()
        assert "gradients" not in {one["data"].get("stage") for one in events["items"]}


def test_an_estimate_tells_of_a_sample_how_many_rows_share_text(service: Service) -> None:
    """Every fifth of 1,100 rows asks a question of the set."""
    rows = [{"prompt": f"Number {number}?", "response": f"It is {number}, as you know."} for number in range(1100)]
    for row in rows[::5]:
        row["prompt"] += " What is the capital of the largest country of them all?"
    asked = {"question": "what is the capital of the largest country of them all"}
    evaluation = {"dataset": {"uri": service.write_dataset([asked], "capitals.jsonl")}, "ngram": 8}
    body = service.request(service.write_dataset(rows, "numbers.jsonl"), constraints={"decontaminate": evaluation})
    told = service.estimate(body).json()
    assert (told["rows"], told["rows_sampled"]) == (1100, 1024)
    assert told["rows_overlapping"] == pytest.approx(220, abs=15)


def test_verdicts_of_proofs_stand_beside_the_methods(service: Service, sessions: Sessions) -> None:
    """And not those of arms that are only called like one: rows of the client's own, or other settings."""
    job = done(service, service.request(baselines=["length", "random", "fisher", "dpp"]))
    called = [{"name": "fisher", "indices": [1, 2]}, {"method": "dpp", "selection": {"alpha": 2.0}}]
    request = {"job": job["id"], "arms": ["selected", "random", {"method": "length"}, *called]}
    comparison = {"against": "random", "metric": "loss", "difference": -0.02, "interval": [-0.03, -0.01]}
    result = {
        "comparisons": [
            {**comparison, "arm": "selected", "verdict": "better"},
            {**comparison, "arm": "length", "verdict": "not_enough_runs", "interval": None},
            {**comparison, "arm": "fisher", "verdict": "worse"},
            {**comparison, "arm": "dpp", "verdict": "worse"},
        ]
    }
    with sessions() as session:
        proof = Proof(
            id=uuid.uuid4(), job_id=uuid.UUID(job["id"]), request=request, state=State.SUCCEEDED, result=result
        )
        session.add(proof)
        session.commit()
        proof_id = str(proof.id)
    methods = service.http.get(job["links"]["league"]).json()["methods"]
    said = {one["method"]: [verdict["verdict"] for verdict in one["verdicts"]] for one in methods}
    assert said == {"spice": ["better"], "length": ["not_enough_runs"], "random": [], "fisher": [], "dpp": []}
    assert next(one for one in methods if one["requested"])["verdicts"][0]["proof_id"] == proof_id
    report = service.http.get(f"/jobs/{job['id']}/report").text
    assert "not enough runs (loss against random)" in report
