"""The plan of docs/scaling.md is arithmetic on what was measured, and on nothing else."""

from __future__ import annotations

import math

import pytest

from benchmarks import scale_table
from scripts.scaling_plan import PLANS, Rates, main, rates, render

ROUND = Rates(gradients=100, reading=10_000, selecting=1e10, tokens=100)


def test_the_page_follows_the_measurements() -> None:
    assert main(["--check"]) == 0, "run make docs-measured"


def test_the_arithmetic_of_a_plan() -> None:
    n, k, p = 10_000_000, 100_000, 1024
    assert (n, k, p) in PLANS
    assert ROUND.gradients_s(n) == 1e7
    assert ROUND.gradients_s(n, machines=100) == 1e5
    assert ROUND.reading_s(n) == 1e5
    assert ROUND.selecting_s(n, k, p) == pytest.approx(204_800)
    page = render(ROUND)
    # n t / R = 1e5 s, n t / G = 1e7 s, over 100 machines 1e5 s, 4 n p = 40.96 GB, 2 n k p / S = 204,800 s
    assert "| 10,000,000 | 100,000 | 1,024 | 28 h | 120 days | 28 h | 41 GB | 57 h |" in page
    # m = sqrt(100): a part is 20,480 s, and so is the merge
    assert "| 10,000,000 | 100,000 | 1,024 | 10 | 5.7 h | 5.7 h | 11 h | 57 h |" in page
    # read on 100 machines, gradients, select: 1e3 + 1e5 + 204,800 s or + 40,960 s
    assert "**In all**: 3.5 days with the exact selection,\n  39 h with the partitioned one." in page
    # an estimate at 6.7e12 operations a second: a part of 100 million rows, 2 * 1e7 * 1e6 * 1024, is 3,057 s
    assert "| 100,000,000 | 1,000,000 | 1,024 | 41 GB | 51 min | 51 min | 1.7 h |" in page


def test_a_measurement_that_says_something_else_is_no_plan() -> None:
    found = [
        {"name": name, "baseline": "quick"}
        for name in ("gradients/vs_training_step_smollm2", "selector/lazy_vs_plain_gaussian")
    ]
    with pytest.raises(ValueError, match=r"no longer says .*tokens.*, but: quick"):
        rates(found)


def test_the_table_of_sizes_has_what_was_measured_and_nothing_else() -> None:
    kept = scale_table.kept()
    page = scale_table.PAGE.read_text(encoding="utf-8")
    assert {10_000, 100_000} <= {cost.rows for cost in kept}
    assert scale_table.page(page, kept) == page


def test_an_exponent_is_that_of_the_two_largest_sizes() -> None:
    assert scale_table.exponent([10, 100, 1000], [5, 7, 700]) == pytest.approx(2.0)
    assert scale_table.exponent([10, 100], [3, 30]) == pytest.approx(1.0)
    assert math.isnan(scale_table.exponent([10], [3]))
