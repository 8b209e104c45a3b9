"""The examples: the script runs from a dataset to a trained model, the others are held to what they call."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from transformers import AutoModelForCausalLM

from app.main import create_app
from spice_client import SpiceClient
from tests.integration.conftest import real_rows
from tests.integration.served import served

if TYPE_CHECKING:
    from tests.integration.conftest import Service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS = 3


def test_the_pipeline_ends_with_a_model_trained_on_the_subset(
    service: Service, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    dataset = service.write_dataset(real_rows())
    command = [sys.executable, str(EXAMPLES / "pipeline.py"), "--run", "tonight", "--out", str(out)]
    command += ["--dataset", dataset, "--proxy", service.model_uri, "--model", str(tiny_model)]
    command += ["--budget", "0.2", "--steps", str(STEPS), "--least-certificate", "0.01"]
    with served(create_app(service.settings)) as url:
        environment = {**os.environ, "SPICE_API_URL": url, "HF_HOME": str(tmp_path / "hf"), "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with SpiceClient(url) as client:
            while not list(client.jobs.list()) and process.poll() is None:
                time.sleep(0.1)
        service.work()
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert "proven to hold at least" in output
    assert "trained on 12 rows" in output

    exported = [json.loads(line) for line in (out / "subset" / "train.jsonl").read_text().splitlines()]
    asked = {row["prompt"]: row["response"] for row in real_rows()}
    assert len(exported) == 12
    assert all(asked[row["prompt"][0]["content"]] == row["completion"][0]["content"] for row in exported)
    origin = json.loads((out / "subset" / "train.spice.json").read_text())
    assert origin["job"]["dataset"]["uri"] == dataset
    assert origin["result"]["selected"] == 12

    before, after = (weights(directory) for directory in (tiny_model, out / "model"))
    assert any((before[name] != after[name]).any() for name in before), "training has moved the weights"


def weights(directory: Path) -> dict[str, Any]:
    return dict(AutoModelForCausalLM.from_pretrained(directory).state_dict())


def test_no_name_of_a_branch_becomes_a_command_of_the_workflow() -> None:
    steps = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())["jobs"]["select"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert any("spice submit" in command for command in commands)
    assert not any("${{" in command for command in commands), "variables are data to a shell, expressions are code"


def test_the_flow_calls_what_the_client_has() -> None:
    """Prefect is not installed here: its dependencies would hold the service's back. So the flow is read, not run."""
    tree = ast.parse((EXAMPLES / "prefect_flow.py").read_text())
    compile(tree, "prefect_flow.py", "exec")
    tasks = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert tasks == {"submit", "wait", "export", "train", "select_and_train"}
    calls = [
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("client.")
    ]
    assert {ast.unparse(call) for call in calls} == {"client.jobs.submit", "client.wait", "client.export"}
    with SpiceClient() as client:
        for call in calls:
            target: Any = client
            for name in ast.unparse(call).split(".")[1:]:
                target = getattr(target, name)
            assert callable(target)
