"""Figures of rows, the filters on them and the lengths that are selected from, against values worked out apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.core.contracts.selection_request import Clip, Filters
from workers.statistics.row_figures import (
    RowFigures,
    dropped_by,
    kept_and_scaled,
    length_factors,
    row_figures,
)

NAN = math.nan


def figures(loss: list[float], ifd: list[float] | None = None) -> RowFigures:
    values = np.array(loss)
    unknown = np.full(len(values), NAN)
    return RowFigures(values, values, np.zeros(len(values)), unknown if ifd is None else np.array(ifd), unknown)


def dropped(found: RowFigures, **bounds: dict[str, float]) -> dict[str, list[int]]:
    filters = Filters.model_validate(bounds)
    return {reason: places.tolist() for reason, places in dropped_by(found, filters).items()}


def test_figures_of_three_rows_by_hand() -> None:
    values = np.array([[3, 4], [0, 5], [0, 0]], dtype=np.float32)  # their sum is (3, 9)
    found = row_figures(values, np.float32([1.0, 2.0, 3.0]), np.float32([2.0, NAN, 0.0]), np.float32([NAN, 9.5, 1.0]))
    assert found.norm.tolist() == [5, 5, 0]
    assert found.cosine == pytest.approx([45 / (5 * math.sqrt(90)), 9 / math.sqrt(90), 0])
    assert found.loss.tolist() == [1, 2, 3]
    assert found.ifd[0] == 0.5
    assert np.isnan(found.ifd[1:]).all(), "not taken, and a loss without a prompt of 0: neither says anything"
    assert found.end_loss[1:].tolist() == [9.5, 1.0]
    assert np.isnan(found.end_loss[0])


def test_a_row_beyond_two_bounds_counts_once() -> None:
    found = figures([1, 2, 3, 4], [0.5, 1.2, 0.7, 1.4])
    both = dropped(found, loss={"max": 3.0}, ifd={"max": 1.0})
    assert both == {"loss_max": [3], "ifd_max": [1]}


def test_bounds_are_within_and_quantiles_are_of_known_figures() -> None:
    found = figures([1, 2, 3, 4, 5], [NAN, 0.1, 0.2, 0.3, 0.4])
    assert dropped(found, loss={"min": 2.0, "max": 4.0}) == {"loss_min": [0], "loss_max": [4]}
    assert dropped(found, ifd={"max_quantile": 0.75}) == {"ifd_max_quantile": [4]}, "0.3 is the third of four"
    assert dropped(found, ifd={"min_quantile": 0.5}) == {"ifd_min_quantile": [1]}, "a row without an IFD stays"
    assert dropped(found, loss={"min_quantile": 0.0, "max_quantile": 1.0}) == {}
    assert dropped(figures([1, 2]), ifd={"max_quantile": 0.5}) == {}, "no IFD is known"


@given(
    losses=st.lists(st.floats(0, 100), min_size=1, max_size=50),
    quantile=st.floats(0, 1),
)
def test_a_quantile_keeps_at_least_its_share(losses: list[float], quantile: float) -> None:
    gone = dropped(figures(losses), loss={"max_quantile": quantile}).get("loss_max_quantile", [])
    assert len(losses) - len(gone) >= quantile * len(losses) - 1e-9
    assert len(gone) < len(losses)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"loss": {}}, "must have min, max, min_quantile or max_quantile"),
        ({"loss": {"min": 2, "max": 1}}, "min 2 is above max 1"),
        ({"ifd": {"min_quantile": 0.9, "max_quantile": 0.1}}, "min_quantile 0.9 is above max_quantile 0.1"),
        ({"loss": {"max_quantile": 1.5}}, "less than or equal to 1"),
        ({"perplexity": {"max": 1}}, "perplexity"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Filters.model_validate(bounds)


def test_lengths_by_hand() -> None:
    norms = np.array([1.0, 2.0, 4.0, 0.0])
    assert length_factors(norms, "none") is None
    unit, clip = length_factors(norms, "unit"), length_factors(norms, "clip")
    assert unit is not None
    assert unit.tolist() == [1.0, 0.5, 0.25, 0.0]
    assert clip is not None
    assert clip.tolist() == [1.0, 1.0, 0.5, 1.0], "the median of the lengths over zero is 2"
    even = length_factors(np.array([1.0, 3.0, 4.0, 8.0]), "clip")
    assert even is not None
    assert even.tolist() == [1.0, 1.0, 3.5 / 4, 3.5 / 8], "the median of four is between the second and the third"
    longest = length_factors(norms, Clip(clip=1.0))
    assert longest is not None
    assert longest.tolist() == [1, 1, 1, 1]
    assert length_factors(np.zeros(3), "clip") is None


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1.0, 1e20, 1e37])
def test_no_gradient_is_too_small_or_too_large_for_length_one(size: float) -> None:
    """Squares of such entries are 0 or infinite in float32; the sketch would silently become 0."""
    values = (np.array([[3.0, -4.0], [0.0, 0.0]]) * size).astype(np.float32)
    found = row_figures(values, *np.zeros((3, 2), np.float32))
    factors = length_factors(found.norm, "unit")
    assert kept_and_scaled(values, np.arange(2), factors) == pytest.approx(
        np.array([[0.6, -0.8], [0.0, 0.0]]), rel=1e-5
    )


@given(
    keep=st.lists(st.booleans(), min_size=1, max_size=30),
    scale=st.booleans(),
    tile=st.integers(1, 200),
)
def test_rows_are_kept_and_scaled_in_place(keep: list[bool], scale: bool, tile: int) -> None:
    count = len(keep)
    values = np.arange(count * 3, dtype=np.float32).reshape(count, 3) + 1
    factors = np.arange(1, count + 1) / 4 if scale else None
    places = np.flatnonzero(keep)
    expected = values[places] if factors is None else values[places] * factors[places, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.statistics.row_figures.TILE_BYTES", tile)
        found = kept_and_scaled(values, places, factors)
    assert np.array_equal(found, expected.astype(np.float32))
    assert not found.flags.writeable
    assert np.shares_memory(found, values) or not len(places)
