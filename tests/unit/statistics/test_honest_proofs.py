"""Proofs of nothing find nothing, and proofs of something find it: on a small bank, and on scores out of a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from app.core.contracts.proof_result import Verdict
from benchmarks import proof, text_gradients
from benchmarks.dirty_pools import planted

if TYPE_CHECKING:
    from workers.data.samples import Sample
    from workers.models.proxy import ProxyModel

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
    monkeypatch.setattr(proof, "llama_samples", _untrained)
    found = {row.name: row for row in proof.rows(quick=True)}
    torch.set_num_threads(threads)
    assert set(found) == {"proof/aa_false", "proof/aa_named", "proof/power"}
    assert all(0 <= row.value <= 1 for row in found.values())
    assert found["proof/aa_false"].smaller_is_better


def test_no_row_keeps_its_response() -> None:
    assert planted(["one", "two", "three"], "swapped", 0) == ["two", "three", "one"]


def _untrained(rows: int) -> tuple[ProxyModel, list[Sample], list[Sample]]:
    """A model that has hardly learned, some rows, and the same rows: the figures are there, whatever they say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text_gradients.RECIPE, "steps", 5)
        samples = text_gradients.tokenised([(f"def f{row}(a, b):", f"Give {row} of them.") for row in range(rows)])
        return text_gradients.trained(samples), samples, samples
