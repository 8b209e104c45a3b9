"""Proofs of nothing find nothing, and proofs of something find it: on a small bank, and on scores out of a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.core.contracts.proof_result import Verdict
from benchmarks import proof

RUNS, ITEMS = 60, 120


@pytest.fixture(scope="module")
def runs() -> np.ndarray:
    """Scores of as many runs as the bank of the benchmark has, each with an offset of its own, as random rows have."""
    random = np.random.default_rng(0)
    items = random.normal(4.0, 1.0, ITEMS)
    return items + random.normal(0, 0.009, (RUNS, 1)) + random.normal(0, 0.05, (RUNS, ITEMS))


def test_random_against_random_comes_out_as_nothing(runs: np.ndarray) -> None:
    said = proof.verdicts(proof.draw_proofs(runs, runs, 200), 0.0)
    assert proof.share(said, Verdict.BETTER, Verdict.WORSE) <= 0.07
    assert proof.share(said, Verdict.BETTER) > 0 or proof.share(said, Verdict.WORSE) > 0, "nor is it blind"


def test_an_effect_of_three_standard_deviations_is_found(runs: np.ndarray) -> None:
    said = proof.verdicts(proof.draw_proofs(runs, runs + 0.03, 50), 0.01)
    assert proof.share(said, Verdict.BETTER) >= 0.8
    assert proof.share(said, Verdict.WORSE) == 0


def test_the_arms_of_a_proof_share_no_run() -> None:
    numbers = np.arange(12.0)[:, None]
    tables = proof.draw_proofs(numbers, numbers, 30)
    assert tables.shape == (30, 5, 1)
    assert (tables != 0).all()


def test_a_small_bank_gives_all_rows_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    small = proof.Size(rows=60, held_out=20, picks=10, random_runs=10, wrong_runs=5, aa_proofs=4, power_proofs=4)
    monkeypatch.setattr(proof, "QUICK", small)
    monkeypatch.setitem(proof.trained.__globals__["RECIPE"], "steps", 5)
    found = {row.name: row for row in proof.rows(quick=True)}
    torch.set_num_threads(threads)
    assert set(found) == {"proof/aa_false", "proof/aa_named", "proof/power"}
    assert all(0 <= row.value <= 1 for row in found.values())
    assert found["proof/aa_false"].smaller_is_better


def test_responses_of_others_keep_the_prompts() -> None:
    rows = proof.tokenised([(f"def f{number}(a, b):", f"Give {number} of what is there.") for number in range(4)])
    swapped = proof.with_responses_of_others(rows)
    for row, other, before in zip(rows, swapped, [rows[-1], *rows[:-1]], strict=True):
        assert other.input_ids[~other.loss_mask].tolist() == row.input_ids[~row.loss_mask].tolist()
        assert other.input_ids[other.loss_mask].tolist() == before.input_ids[before.loss_mask].tolist()
