"""`spice prove`: which exit status a proof's verdicts come to, and what a request must have."""

from __future__ import annotations

from typing import Any

import pytest

from spice_client.cli.failure import CommandFailedError
from spice_client.cli.prove import ProofExit, exit_of
from spice_client.cli.request import RequestFlags, build_proof_request
from spice_client.models import Proof


def _proof(*verdicts: str, state: str = "succeeded") -> Proof:
    comparisons = [
        {
            "arm": "selected",
            "against": "random",
            "metric": f"m{n}",
            "smallest_effect": 0.1,
            "verdict": verdict,
            "seeds": 5,
        }
        for n, verdict in enumerate(verdicts)
    ]
    document: dict[str, Any] = {
        "id": "2f6a0d52-6e83-4e0b-9df2-6f4c1c0a7b11",
        "name": None,
        "metadata": {},
        "state": state,
        "stage": None,
        "progress": None,
        "error": None,
        "created_at": "2026-11-24T03:00:00Z",
        "comparisons": comparisons,
    }
    return Proof.model_validate(document)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["better"], 0),
        (["equivalent"], 0),
        (["better", "equivalent"], 0),
        (["worse"], 3),
        (["better", "worse"], 3),
        (["not_enough_runs"], 4),
        (["better", "not_enough_runs"], 4),
        (["worse", "not_enough_runs"], 3),
    ],
)
def test_the_worst_verdict_decides(verdicts: list[str], status: int) -> None:
    assert exit_of(_proof(*verdicts), "selected") == status


def test_a_proof_without_a_result_is_a_failure() -> None:
    assert exit_of(_proof(state="cancelled"), "selected") is ProofExit.FAILED


def test_an_arm_that_is_not_compared_is_named() -> None:
    with pytest.raises(CommandFailedError, match="--arm fisher: the proof compares selected"):
        exit_of(_proof("better"), "fisher")


def test_a_request_has_a_job_or_all_that_one_has() -> None:
    flags = RequestFlags(None, None, None, None, [], ["training.epochs=1"])
    assert build_proof_request(None, flags, {"job": "x"}) == {"job": "x", "training": {"epochs": 1}}
    with pytest.raises(CommandFailedError, match="give --job, or --dataset, --model, --budget"):
        build_proof_request(None, flags, {"seeds": 3})
