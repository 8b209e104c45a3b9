"""What work will take, by what work of other sizes took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.statistics.durations import SPREAD, expected_seconds

SIZES = [100.0, 200.0, 400.0, 800.0, 1600.0]


def test_nothing_measured_says_nothing() -> None:
    assert expected_seconds([], [], 10.0) is None


@given(constant=st.floats(0.01, 10), slope=st.floats(1e-4, 1.0), size=st.floats(100, 1600))
def test_a_constant_part_and_a_part_by_size_are_found(constant: float, slope: float, size: float) -> None:
    found = expected_seconds(SIZES, [constant + slope * one for one in SIZES], size)
    assert found is not None
    assert found.likely == pytest.approx(constant + slope * size, rel=1e-6)
    assert found.high == pytest.approx((1 + SPREAD) * found.likely)
    assert found.low == pytest.approx(found.likely / (1 + SPREAD))


@given(units=st.integers(1, 20))
def test_each_piece_costs_the_constant_part_again(units: int) -> None:
    found = expected_seconds(SIZES, [3.0 + 0.01 * one for one in SIZES], 200.0 * units, units=units)
    assert found is not None
    assert found.likely == pytest.approx(units * (3.0 + 2.0), rel=1e-6)


@given(
    seconds=st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30),
    sizes=st.lists(st.floats(1, 1e9), min_size=30, max_size=30),
    size=st.floats(1, 1e9),
)
def test_low_likely_and_high_are_in_order_and_never_below_nothing(
    seconds: list[float], sizes: list[float], size: float
) -> None:
    found = expected_seconds(sizes[: len(seconds)], seconds, size)
    assert found is not None
    assert 0 <= found.low <= found.likely <= found.high


def test_what_is_measured_at_one_size_grows_in_proportion_and_is_told_with_more_doubt() -> None:
    near, far = (expected_seconds([100.0] * 5, [2.0] * 5, size) for size in (100.0, 1000.0))
    assert near is not None
    assert far is not None
    assert (near.likely, far.likely) == (pytest.approx(2.0), pytest.approx(20.0))
    assert far.high / far.likely > near.high / near.likely


def test_the_most_similar_measurements_count() -> None:
    sizes, seconds = [100.0] * 40, [1.0] * 20 + [9.0] * 20
    alike = [0.1] * 20 + [2.0] * 20
    found = expected_seconds(sizes, seconds, 100.0, alike=alike)
    assert found is not None
    assert found.likely == pytest.approx(1.0)
