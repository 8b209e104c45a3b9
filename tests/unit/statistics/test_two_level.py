"""The two-level bootstrap against values worked out by hand or by other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workers.statistics.two_level import clusters_of, estimate, estimates


def test_one_item_is_the_t_interval_of_the_seeds() -> None:
    seeds = np.array([0.02, -0.01, 0.05, 0.03, 0.01])
    found = estimate(seeds[:, None], np.zeros(1, dtype=np.int64))
    expected = stats.t.interval(0.95, 4, loc=seeds.mean(), scale=seeds.std(ddof=1) / np.sqrt(5))
    assert found.freedom == pytest.approx(4, rel=0.05)
    assert found.mean == pytest.approx(0.02)
    assert found.interval == pytest.approx(expected, rel=0.05)  # 10,000 draws know a variance to 2%
    assert found.p_value == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue, rel=0.1)


def test_seeds_that_agree_leave_the_spread_of_the_items() -> None:
    items = np.random.default_rng(0).normal(size=300)
    found = estimate(np.tile(items, (4, 1)), np.arange(300))
    assert found.standard_error == pytest.approx(items.std() / np.sqrt(300), rel=0.03)
    assert found.freedom == pytest.approx(299, rel=0.01)
    assert found.lasting == pytest.approx(found.standard_error**2, rel=0.05), "more seeds would not help"


def test_rows_of_one_source_count_as_one_where_they_are_alike() -> None:
    sources = np.repeat(np.arange(20), 30)
    items = np.random.default_rng(0).normal(size=20)[sources]
    table = np.tile(items, (3, 1))
    together = estimate(table, clusters_of(sources, 600))
    apart = estimate(table, clusters_of(None, 600))
    assert together.standard_error == pytest.approx(items[::30].std() / np.sqrt(20), rel=0.03)
    assert together.standard_error > 4 * apart.standard_error


def test_few_sources_are_not_drawn_as_wholes() -> None:
    assert clusters_of(["a", "b"] * 3, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert clusters_of([str(row % 10) for row in range(20)], 20).max() == 9


def test_a_mean_that_is_nothing_is_found_to_be_something_in_one_of_twenty() -> None:
    random = np.random.default_rng(3)
    tables = random.normal(size=(600, 5, 1)) + 0.3 * random.normal(size=(600, 5, 40))
    found = np.mean([one.p_value < 0.05 for one in estimates(tables, np.arange(40))])
    assert 0.02 < found < 0.08  # 0.05, and 3 standard errors of 600 tries to either side


@given(st.floats(-5, 5), st.floats(0.01, 100))
def test_moving_and_scaling_the_scores_moves_and_scales_the_interval(shift: float, scale: float) -> None:
    table = np.random.default_rng(5).normal(size=(3, 7))
    plain, changed = (estimate(one, np.arange(7)) for one in (table, scale * table + shift))
    assert changed.interval == pytest.approx([scale * end + shift for end in plain.interval], rel=1e-6, abs=1e-9)


def test_identical_scores_are_sure() -> None:
    found = estimate(np.zeros((3, 5)), np.arange(5))
    assert (found.interval, found.p_value) == ((0.0, 0.0), 1.0)


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        estimate(np.zeros((1, 5)), np.arange(5))


def test_large_tables_are_drawn_in_blocks_to_the_same_end() -> None:
    items = np.random.default_rng(0).normal(size=4000)  # 10,000 draws of as many are more than a block
    found = estimate(np.stack([items, items]), np.arange(4000))
    assert found.standard_error == pytest.approx(items.std() / np.sqrt(4000), rel=0.03)
