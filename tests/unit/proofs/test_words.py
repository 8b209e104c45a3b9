"""What a proof's comparison says in words: how far apart, how sure, what follows."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.contracts.proof_result import Comparison
from app.proofs.words import sentence_of


def compared(**changed: Any) -> Comparison:
    found: dict[str, Any] = {
        "arm": "selected",
        "against": "random",
        "metric": "loss",
        "difference": -0.0123,
        "interval": (-0.02, -0.004),
        "standard_error": 0.004,
        "degrees_of_freedom": 2.0,
        "p_value": 0.01,
        "smallest_effect": 0.01,
        "verdict": "better",
        "runs_needed": None,
        "seeds": 3,
    }
    return Comparison.model_validate({**found, **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "loss is 0.0123 nats a token lower (95% interval -0.0200 to -0.0040). Better."),
        ({"difference": 0.5, "interval": None, "verdict": "worse"}, "loss is 0.5000 nats a token higher. Worse."),
        (
            {"difference": -1e-6, "interval": None, "verdict": "equivalent"},
            "loss differs by less than 0.0001 nats a token. Equivalent: less than 0.01 does not matter.",
        ),
        (
            {"metric": "exact_match", "interval": (-0.1, 0.08), "verdict": "not_enough_runs", "runs_needed": 9},
            "exact match is 0.0123 lower (95% interval -0.1000 to +0.0800). Not enough runs: 9 seeds would decide it.",
        ),
        (
            {"interval": None, "verdict": "not_enough_runs", "seeds": 1},
            "loss is 0.0123 nats a token lower. Not enough runs: two seeds that both have are needed.",
        ),
    ],
)
def test_a_comparison_is_said_in_words(changed: dict[str, Any], said: str) -> None:
    assert sentence_of(compared(**changed)) == f"selected against random: {said}"


def test_arms_without_a_seed_in_common_are_not_compared() -> None:
    said = sentence_of(compared(difference=None, interval=None, verdict="not_enough_runs"))
    assert said == "selected against random, loss: no run of the two has the same seed."
