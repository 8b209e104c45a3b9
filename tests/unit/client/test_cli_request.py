"""How `spice submit` makes a request out of a file and flags."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from app.core.contracts.job_request import JobRequest
from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import CommandFailedError
from spice_client.cli.request import RequestFlags, build_job_request
from spice_client.sources import BudgetNotReadable, budget_of

WHOLE = RequestFlags(dataset="https://example.com/train.jsonl", model="file:///models/tiny", budget="10%")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("500", {"count": 500}),
        ("1", {"count": 1}),
        ("0", {"count": 0}),  # the service refuses it, and says why
        ("0.1", {"fraction": 0.1}),
        ("1.0", {"fraction": 1.0}),
        ("10%", {"fraction": 0.1}),
        ("2.5%", {"fraction": 0.025}),
        ("1e-3", {"fraction": 0.001}),
        ("200000 tokens", {"tokens": 200000}),
        ("7tokens", {"tokens": 7}),
    ],
)
def test_a_budget_is_a_count_a_fraction_or_a_percentage(text: str, budget: dict[str, float]) -> None:
    assert budget_of(text) == budget


@pytest.mark.parametrize("text", ["many", "tokens", "1.5 tokens", "5 tokens more"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BudgetNotReadable, match=f"budget '{text}': give a number of rows"):
        budget_of(text)


def test_flags_alone_make_a_request() -> None:
    assert build_job_request(None, WHOLE) == {
        "dataset": {"uri": "https://example.com/train.jsonl"},
        "model": {"uri": "file:///models/tiny"},
        "selection": {"budget": {"fraction": 0.1}},
    }


def test_the_flags_of_the_documentation_make_the_request_that_they_say() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "client.md").read_text(encoding="utf-8")
    (command,) = (
        block
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        if block.startswith("spice submit") and "--set" in block
    )
    words = shlex.split(command.replace("\\\n", " "))
    settings = [value for flag, value in pairwise(words) if flag == "--set"]
    request = JobRequest.model_validate(build_job_request(None, replace(WHOLE, settings=settings)))
    assert request.selection.baselines == ("random", "dpp")
    assert request.gradients.layers == ("q_proj", "layers.1?.mlp.*")
    assert (request.selection.conflict_penalty, request.gradients.warmup_steps) == (0.3, 20)
    assert (request.selection.partitions, request.timeout_s) == (8, 3600)
    assert request.webhook is not None


def test_flags_override_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    request = {
        "dataset": {"uri": "file:///data/a.jsonl", "columns": {"prompt": "q", "response": "a"}},
        "model": {"uri": "file:///models/tiny", "max_length": 64},
        "selection": {"budget": {"fraction": 0.5}, "method": "dpp"},
        "metadata": {"team": "search"},
    }
    file.write_text(json.dumps(request))
    flags = RequestFlags(
        dataset="s3://bucket/b.jsonl",
        budget="7",
        name="tonight",
        metadata=["run=a=b"],
        settings=["selection.conflict_penalty=0.2", "gradients.target=linear", "selection.early_stop_ratio=null"],
    )
    assert build_job_request(str(file), flags) == {
        "dataset": {"uri": "s3://bucket/b.jsonl", "columns": {"prompt": "q", "response": "a"}},
        "model": {"uri": "file:///models/tiny", "max_length": 64},
        "gradients": {"target": "linear"},
        "selection": {"budget": {"count": 7}, "method": "dpp", "conflict_penalty": 0.2, "early_stop_ratio": None},
        "metadata": {"team": "search", "run": "a=b"},
        "name": "tonight",
    }


def test_a_dataset_given_by_id_or_by_uri_replaces_the_other(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    known = "3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11"
    file.write_text(json.dumps({"dataset": {"uri": "file:///data/a.jsonl", "format": "jsonl"}}))
    flags = RequestFlags(dataset=known, model="file:///m", budget="1")
    assert build_job_request(str(file), flags)["dataset"] == {"id": known, "format": "jsonl"}
    file.write_text(json.dumps({"dataset": {"id": known}}))
    flags = RequestFlags(dataset="s3://bucket/b.csv", model="file:///m", budget="1")
    assert build_job_request(str(file), flags)["dataset"] == {"uri": "s3://bucket/b.csv"}


def test_a_path_on_this_machine_becomes_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my rows.jsonl").touch()
    (tmp_path / "tiny").mkdir()
    request = build_job_request(None, RequestFlags(dataset="my rows.jsonl", model="./tiny", budget="1"))
    assert request["dataset"] == {"uri": (tmp_path / "my rows.jsonl").as_uri()}
    assert request["dataset"]["uri"].endswith("my%20rows.jsonl")
    assert request["model"] == {"uri": (tmp_path / "tiny").as_uri()}


def test_the_request_may_come_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_job_request(None, WHOLE)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(whole)))
    assert build_job_request("-", RequestFlags()) == whole


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("{", "line 1 column 2"),
        ("[1]", "holds no JSON object"),
        ('{"dataset": "file:///data/a.jsonl"}', "dataset: is 'file:///data/a.jsonl', not an object"),
        ("{}", "there is no dataset: give --dataset"),
        ('{"dataset": {}}', "there is no model: give --model"),
        ('{"dataset": {}, "model": {}}', "there is no selection: give --budget"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_is_no_request_is_refused_with_a_reason(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "request.json"
    if content is not None:
        file.write_text(content)
    flags = RequestFlags(metadata=["a=b"], settings=["dataset.format=csv"] if content and "dataset" in content else [])
    with pytest.raises(CommandFailedError) as refusal:
        build_job_request(str(file), flags)
    assert says in str(refusal.value)
    assert refusal.value.code is ExitCode.REFUSED


@pytest.mark.parametrize(
    "flags",
    [
        replace(WHOLE, budget="nan"),
        replace(WHOLE, settings=["selection.alpha=Infinity"]),
        replace(WHOLE, name=os.fsdecode(b"caf\xe9")),
    ],
)
def test_what_cannot_be_sent_is_refused(flags: RequestFlags) -> None:
    with pytest.raises(CommandFailedError, match="can't be sent as JSON"):
        build_job_request(None, flags)


@pytest.mark.parametrize("flags", [RequestFlags(metadata=["team"]), RequestFlags(settings=["=1"])])
def test_a_pair_without_name_or_value_is_refused(flags: RequestFlags) -> None:
    with pytest.raises(CommandFailedError, match="give name=value"):
        build_job_request(None, flags)


def test_a_preset_or_a_schedule_says_how_many_rows_are_picked(tmp_path: Path) -> None:
    named = replace(WHOLE, budget=None, preset="authors-code")
    assert build_job_request(None, named) == {
        "dataset": {"uri": "https://example.com/train.jsonl"},
        "model": {"uri": "file:///models/tiny"},
        "preset": "authors-code",
    }
    file = tmp_path / "request.json"
    file.write_text('{"schedule": {"keep": 6}}')
    request = JobRequest.model_validate(build_job_request(str(file), replace(WHOLE, budget=None)))
    assert request.selection.budget.fraction == 6 / 120
    with pytest.raises(CommandFailedError, match="there is no selection: give --budget"):
        build_job_request(None, replace(WHOLE, budget=None))
