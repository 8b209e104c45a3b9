"""Verdicts: what each says, which comes first, and how many runs would be enough."""

from __future__ import annotations

import numpy as np
import pytest

from app.core.contracts.proof_result import Verdict
from workers.statistics.verdicts import Decision, decide, holm

ITEMS = 200
CLUSTERS = np.arange(ITEMS)


def _decided(mean: float, spread: float, *, seeds: int = 5, effect: float = 0.01, lower: bool = True) -> Verdict:
    return _decision(mean, spread, seeds=seeds, effect=effect, lower=lower).verdict


def _decision(mean: float, spread: float, *, seeds: int = 5, effect: float = 0.01, lower: bool = True) -> Decision:
    offsets = np.linspace(-1, 1, seeds)
    table = mean + spread * offsets[:, None] / offsets.std(ddof=1) + np.zeros((seeds, ITEMS))
    return decide({"m": table}, {"m": CLUSTERS}, {"m": effect}, {"m": lower})["m"]


def test_a_loss_that_is_surely_lower_is_better_and_a_score_that_is_surely_lower_is_worse() -> None:
    assert _decided(-0.05, 0.01) is Verdict.BETTER
    assert _decided(0.05, 0.01) is Verdict.WORSE
    assert _decided(-0.05, 0.01, lower=False) is Verdict.WORSE
    assert _decided(0.05, 0.01, lower=False) is Verdict.BETTER


def test_a_difference_that_is_surely_there_and_surely_too_small_is_none() -> None:
    assert _decided(-0.004, 0.001) is Verdict.EQUIVALENT
    assert _decided(-0.004, 0.001, effect=0.003) is Verdict.BETTER


def test_a_wide_interval_says_how_many_runs_would_be_enough() -> None:
    found = _decision(0.02, 0.02)  # t(4) 0.02 / sqrt(5) = 0.025: the interval holds 0
    assert found.verdict is Verdict.NOT_ENOUGH_RUNS
    # t(6) 0.02 / sqrt(7) = 0.0185 is the first below 0.02.
    assert found.runs_needed == 7
    assert _decided(0.02, 0.02, seeds=7) is Verdict.WORSE


def test_no_number_of_runs_is_named_where_the_items_are_too_few() -> None:
    items = np.random.default_rng(0).normal(size=10)
    table = np.tile(items - items.mean() + 0.01, (5, 1))
    found = decide({"m": table}, {"m": np.arange(10)}, {"m": 0.02}, {"m": True})["m"]
    assert (found.verdict, found.runs_needed) == (Verdict.NOT_ENOUGH_RUNS, None)


def test_one_seed_in_common_is_not_enough() -> None:
    found = decide({"m": np.ones((1, 9))}, {"m": np.arange(9)}, {"m": 0.1}, {"m": True})["m"]
    assert (found.verdict, found.estimate) == (Verdict.NOT_ENOUGH_RUNS, None)


def test_one_held_out_row_is_not_enough() -> None:
    found = decide({"m": np.full((5, 1), 0.5)}, {"m": np.arange(1)}, {"m": 0.1}, {"m": True})["m"]
    assert (found.verdict, found.estimate, found.runs_needed) == (Verdict.NOT_ENOUGH_RUNS, None, None)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1, none below the one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_a_second_metric_asks_for_more() -> None:
    # p is just below 0.05: alone it would be called worse.
    unsure = 0.0105 + np.linspace(-0.01, 0.01, 5)[:, None] + np.zeros((5, ITEMS))
    clusters, effects, lower = dict.fromkeys("ab", CLUSTERS), dict.fromkeys("ab", 0.001), dict.fromkeys("ab", True)
    alone = decide({"a": unsure}, clusters, effects, lower)["a"]
    both = decide({"a": unsure, "b": unsure}, clusters, effects, lower)["a"]
    assert alone.verdict is Verdict.WORSE
    assert both.verdict is Verdict.NOT_ENOUGH_RUNS
    assert both.adjusted_p == pytest.approx(2 * alone.adjusted_p)
