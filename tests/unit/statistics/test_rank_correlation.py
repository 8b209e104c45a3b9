"""Spearman's coefficient and its interval against the formula by hand."""

from __future__ import annotations

import math

import pytest

from workers.statistics.rank_correlation import rank_correlation


def test_interval_by_hand() -> None:
    # Ranks 1 2 3 4 5 6 against 2 1 4 3 6 5: sum of squares 6, r = 1 - 36/210.
    found = rank_correlation([1, 2, 3, 4, 5, 6], [20, 10, 40, 30, 60, 50])
    r = 1 - 36 / 210
    half = 1.959964 * math.sqrt((1 + r * r / 2) / 3)
    assert found.coefficient == pytest.approx(r)
    assert found.interval == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))


def test_a_perfect_order_of_a_few_points_is_not_certain() -> None:
    found = rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert found.coefficient == pytest.approx(1)
    assert found.interval is not None
    assert found.interval[0] < 0.9
    assert found.interval[1] == pytest.approx(1)


def test_what_does_not_vary_has_no_order() -> None:
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).coefficient is None
    assert rank_correlation([1, 2, 3], [3, 1, 2]).interval is None
