"""What a proof can't be made of: refused with the field where that is known, failed by name where it shows later."""

from __future__ import annotations

import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import real_rows
from tests.integration.problems import fields_of
from tests.integration.proofs.test_proofs import TRAINING, ended, proof_body, prove
from workers.models.files import TEMPLATES
from workers.stages import proof_run
from workers.training.trainer import LossNotFinite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service


NO_PROMPT_EFFECT = {"prompt_effect": False}
IFD_FILTER = {"filters": {"ifd": {"max": 1.0}}}
EVALUATION = {"decontaminate": {"dataset": {"uri": "file:///x.jsonl"}}}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"seeds": 1}, "seeds", "greater than or equal to 2"),
        ({"metrics": ["accuracy"]}, "metrics.0", "accuracy"),
        ({"metrics": ["loss", "loss"]}, "", "each metric once"),
        ({"arms": ["selected", "best"]}, "arms.1", "'best'"),
        ({"arms": ["selected", "selected", "random"]}, "", "selected is there twice"),
        ({"arms": ["selected", "all"]}, "", "against names 'random'"),
        ({"arms": ["random", {"name": "mine", "indices": [1, 1]}]}, "arms.1", "each row once"),
        ({"arms": ["random", {"name": "mine", "indices": []}]}, "arms.1", "at least 1"),
        ({"arms": ["random", {"name": "all", "indices": [1]}]}, "", "an arm of the service"),
        ({"arms": ["random", {"method": "newton"}]}, "arms.1", "newton"),
        ({"arms": ["random", {"name": "odd", "selection": {"conflict_penalty": -1}}]}, "", "odd"),
        (
            {"gradients": NO_PROMPT_EFFECT, "arms": ["random", {"method": "ifd"}]},
            "",
            "arm ifd: selection.method ifd needs",
        ),
        (
            {"gradients": NO_PROMPT_EFFECT, "arms": ["random", {"name": "f", "selection": IFD_FILTER}]},
            "",
            "arm f: selection.filters.ifd needs",
        ),
        (
            {"gradients": NO_PROMPT_EFFECT, "selection": {"budget": {"count": 5}, **IFD_FILTER}},
            "",
            "selection.filters.ifd needs gradients.prompt_effect",
        ),
        (
            {"gradients": {"loss_over": "row"}, "arms": ["random", {"method": "length"}]},
            "",
            "arm length: gradients.loss_",
        ),
        (
            {"arms": ["random", {"name": "clean", "selection": {"constraints": EVALUATION}}]},
            "",
            "arm clean: selection.constraints.decontaminate is not that of the proof's own",
        ),
        ({"arms": ["random", {"name": "parts", "selection": {"partitions": 4}}]}, "arms.1", "has no part in an arm"),
        ({"held_out": {"fraction": 1}}, "held_out.fraction", "less than 1"),
        ({"held_out": {}}, "held_out", "either fraction"),
        ({"smallest_effect": {"choice": 0.1}}, "", "smallest_effect names choice"),
        ({"premise": {"subsets": 2}}, "premise.subsets", "4"),
        ({"training": {"epochs": 0}}, "training.epochs", "greater than or equal to 1"),
        ({"job": str(uuid.uuid4())}, "", "leave either out"),
        ({"selection": None}, "", "must have selection"),
        ({"webhook": {"url": "http://127.0.0.1/"}}, "webhook.url", "SPICE_WEBHOOK_SECRET"),
        (
            {"held_out": {"dataset": {"uri": "file:///etc/passwd.jsonl"}}},
            "held_out.dataset.uri",
            "outside the directories",
        ),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    shared_service: Service, fields: dict[str, Any], field: str, message: str
) -> None:
    body = {name: value for name, value in {**proof_body(shared_service), **fields}.items() if value is not None}
    response = shared_service.http.post("/proofs", json=body)
    assert response.status_code == 422, response.text
    errors = response.json()["errors"]
    assert any(field in error["field"] and message in error["message"] for error in errors), errors


def test_a_job_that_is_not_there_or_has_failed_is_refused(shared_service: Service) -> None:
    service = shared_service
    job = service.submit(service.request(budget={"count": 10_000}))
    service.work()
    assert service.job(job)["state"] == "failed"
    for wrong in (job, str(uuid.uuid4())):
        response = service.http.post("/proofs", json={"job": wrong})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "job")
    unknown = service.http.get(f"/proofs/{uuid.uuid4()}")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "proof-not-found")


@pytest.mark.small_shards
def test_a_job_that_its_limits_cut_short_is_not_proven(service: Service) -> None:
    """Random rows come from all rows. A job that was still waiting as the proof was asked for is told likewise."""
    limits = {"gradient_tokens": 1, "on_limit": "select"}
    waiting = service.submit({**service.request(), "limits": limits})
    asked = service.http.post("/proofs", json={"job": waiting, "training": TRAINING}).json()["id"]
    proof = ended(service, asked)
    assert (proof["state"], proof["error"]["type"]) == ("failed", "job-limited")
    refused = service.http.post("/proofs", json={"job": waiting})
    assert refused.status_code == 422
    assert "has scored 16 rows and not 44 others" in fields_of(refused)["job"]


def test_what_a_finished_job_tells_is_held_against_the_request(service: Service) -> None:
    job = service.run(service.request(budget={"count": 50}))
    for fields, field in (
        ({"arms": ["random", {"name": "mine", "indices": [60]}]}, "arms.1.indices"),
        ({"held_out": {"fraction": 0.5}}, "held_out.fraction"),
        ({"arms": ["random", {"name": "odd", "selection": {"early_stop_ratio": 7}}]}, "arms.1"),
        ({"arms": ["random", {"name": "clean", "selection": {"constraints": EVALUATION}}]}, "arms.1"),
    ):
        response = service.http.post("/proofs", json={"job": job["id"], **fields})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field), response.text
        assert "Value error" not in response.text


def test_what_shows_only_when_the_data_is_read_fails_by_name(service: Service) -> None:
    beyond = prove(service, arms=["random", {"name": "mine", "indices": [60]}])
    assert (beyond["state"], beyond["error"]["type"]) == ("failed", "arm-impossible")
    assert "has 60 rows" in beyond["error"]["detail"]
    copies = [real_rows()[0]] * 20
    body = {"dataset": {"uri": service.write_dataset(copies, "copies.jsonl")}}
    empty = prove(service, **body)
    assert (empty["state"], empty["error"]["type"]) == ("failed", "pool-empty")
    missing = (service.directory / "missing.jsonl").as_uri()
    apart = prove(service, held_out={"dataset": {"uri": missing}})
    assert (apart["error"]["type"], [one["field"] for one in apart["error"]["errors"]]) == (
        "dataset-missing",
        ["held_out.dataset"],
    )
    choice = prove(service, metrics=["choice"])
    assert (choice["state"], choice["error"]["type"]) == ("failed", "metric-impossible")


def test_held_out_rows_of_their_own_push_equal_rows_out_of_the_pool(service: Service, tiny_model: Path) -> None:
    """Pool, held-out rows and the options of a choice are all read with the chat template that the request names."""
    model = shutil.copytree(tiny_model, service.directory / "several_templates")
    (model / TEMPLATES).mkdir()
    (model / "chat_template.jinja").rename(model / TEMPLATES / "chat.jinja")
    rows = real_rows()
    shouted = [{**row, "prompt": f"  {row['prompt'].upper()} "} for row in rows[:5]]
    answers = [row["response"][:20].strip() for row in rows[:10]]
    fresh = [
        {"prompt": f"{row['prompt']} Please.", "response": answer, "choices": [answer, "no"]}
        for row, answer in zip(rows, answers, strict=False)
    ]
    uri = service.write_dataset([*shouted, *fresh], "held_out.jsonl")
    proof = prove(
        service,
        model={"uri": model.as_uri(), "max_length": 128, "chat_template": "chat"},
        held_out={"dataset": {"uri": uri}},
        metrics=["loss", {"name": "choice", "options": "choices"}],
        arms=["all", "random", {"name": "mine", "indices": [0, 20, 30]}],
    )
    assert proof["state"] == "succeeded", proof["error"]
    assert proof["held_out"]["rows"] == 15
    assert proof["held_out"]["duplicates_dropped"] == 5
    assert proof["held_out"]["candidates"] == 55
    assert proof["held_out"]["not_scored"] == {"choice": 5}
    mine = proof["arms"][2]
    assert (mine["rows"], mine["left_out"]) == (2, {"duplicate_of_held_out": 1})
    assert all(0 <= arm["mean"]["choice"] <= 1 for arm in proof["arms"])


def test_a_loss_that_is_no_number_fails_its_run_by_name_and_the_proof_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = proof_run.train

    def unlucky(*arguments: Any, **named: Any) -> Any:
        if arguments[2].seed == 1:
            raise LossNotFinite(3, 7)
        return plain(*arguments, **named)

    monkeypatch.setattr(proof_run, "train", unlucky)
    proof = prove(service, seeds=3, training={**TRAINING, "keep_adapters": True})
    assert proof["state"] == "succeeded", proof["error"]
    assert proof["failed_runs"] == 2
    assert proof["notes"][0].startswith("2 runs failed")
    for arm in proof["arms"]:
        good, wrong, _ = arm["runs"]
        assert (wrong["state"], wrong["error"]["type"]) == ("failed", "loss-not-finite")
        assert f"arm {arm['name']}, seed 1: the loss of step 3 of 7" in wrong["error"]["detail"]
        assert good["adapter"].endswith("adapter/")
    assert proof["comparisons"][0]["seeds"] == 2
