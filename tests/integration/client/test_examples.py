"""The examples: script and flow run from a dataset to a trained model, the workflow's commands are held to be safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from app.main import create_app
from spice_client import SpiceClient
from tests.integration.conftest import real_rows
from tests.integration.served import served

if TYPE_CHECKING:
    from tests.integration.conftest import Service

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
STEPS = 3


#: Prefect is not installed here: its dependencies would hold the service's back. So the flow runs without what it adds.
STANDS_IN_FOR_PREFECT = """
import logging
from types import SimpleNamespace

def task(function=None, **_):
    return function or task

flow = task
get_run_logger = logging.getLogger
flow_run = SimpleNamespace(id="4711")
"""


@pytest.mark.slow
def test_the_pipeline_ends_with_a_model_trained_on_the_subset(
    service: Service, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    dataset = service.write_dataset(real_rows())
    command = [sys.executable, str(EXAMPLES / "pipeline.py"), "--run", "tonight", "--out", str(out)]
    command += ["--dataset", dataset, "--proxy", service.model_uri, "--model", str(tiny_model)]
    command += ["--budget", "0.2", "--steps", str(STEPS), "--least-certificate", "0.01"]
    output = carried_out(command, service, tmp_path)
    assert "proven to hold at least" in output
    assert "trained on 12 rows" in output

    exported = [json.loads(line) for line in (out / "subset" / "train.jsonl").read_text().splitlines()]
    asked = {row["prompt"]: row["response"] for row in real_rows()}
    assert len(exported) == 12
    assert all(asked[row["prompt"][0]["content"]] == row["completion"][0]["content"] for row in exported)
    origin = json.loads((out / "subset" / "train.spice.json").read_text())
    assert origin["job"]["dataset"]["uri"] == dataset
    assert origin["result"]["selected"] == 12
    assert_trained(out / "model", tiny_model)


@pytest.mark.slow
def test_the_flow_ends_with_a_model_trained_on_the_subset(service: Service, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "__init__.py").write_text(STANDS_IN_FOR_PREFECT)
    (tmp_path / "prefect" / "runtime.py").write_text("from prefect import flow_run")
    request = {
        "dataset": {"uri": service.write_dataset(real_rows())},
        "model": {"uri": service.model_uri},
        "selection": {"budget": {"fraction": 0.2}},
    }
    called = f"prefect_flow.select_and_train({request}, {str(tiny_model)!r}, Path({str(tmp_path)!r}), 0.01)"
    carried_out([sys.executable, "-c", f"from pathlib import Path; import prefect_flow; {called}"], service, tmp_path)
    assert len((tmp_path / "subset" / "train.jsonl").read_text().splitlines()) == 12
    assert_trained(tmp_path / "model", tiny_model)


def carried_out(command: list[str], service: Service, directory: Path) -> str:
    """What a command prints that submits one job to the service and goes on with its result."""
    with served(create_app(service.settings)) as url:
        environment = {
            **os.environ,
            "SPICE_API_URL": url,
            "HF_HOME": str(directory / "hf"),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join((str(directory), str(EXAMPLES))),
        }
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with SpiceClient(url) as client:
            while not list(client.jobs.list()) and process.poll() is None:
                time.sleep(0.1)
        service.work()
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    return output


def assert_trained(trained: Path, model: Path) -> None:
    before, after = (weights(directory) for directory in (model, trained))
    assert any((before[name] != after[name]).any() for name in before), "training has moved the weights"


def weights(directory: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - a second of imports

    return dict(AutoModelForCausalLM.from_pretrained(directory).state_dict())


def test_no_name_of_a_branch_becomes_a_command_of_the_workflow() -> None:
    steps = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())["jobs"]["select"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert any("spice submit" in command for command in commands)
    assert not any("${{" in command for command in commands), "variables are data to a shell, expressions are code"
