"""How long work of some size takes, by how long work of other sizes took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

QUANTILES = (0.1, 0.5, 0.9)
"""Of what earlier work took against what the line through it says: low, likely, high."""
SPREAD = 0.1
"""Least distance of low and high from likely, as a share of it."""
SPREAD_BEYOND = 0.15
"""What is added to that for each factor e that the work is larger or smaller than all that was measured."""
LIKE = 16
"""Measurements of the most similar work that count."""
ENOUGH_FOR_A_LINE = 1.5
"""Ratio of the largest to the smallest size from which on a constant part of the time can be told from the rest."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds, as low, likely and high."""

    low: float
    likely: float
    high: float

    def plus(self, other: Expected) -> Expected:
        """Both, one after the other."""
        return Expected(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> Expected:
        """As often."""
        return Expected(self.low * factor, self.likely * factor, self.high * factor)


NOTHING = Expected(0.0, 0.0, 0.0)


def expected_seconds(
    sizes: Sequence[float], seconds: Sequence[float], size: float, *, units: float = 1.0, alike: Sequence[float] = ()
) -> Expected | None:
    """What work of a size will take.

    A line a + b * size with a, b >= 0 is laid through what was measured, least squares of the relative error. Where all
    sizes are about the same, it goes through the origin.

    Args:
        sizes: Of what was measured, all over 0.
        seconds: What each took.
        size: Of the work, in all.
        units: Pieces that the work is done in: each costs the constant part again.
        alike: How unlike each measurement is to the work; the least unlike count. Left out: all count.

    Returns:
        None where nothing was measured.
    """
    if not len(sizes):
        return None
    measured, took = np.asarray(sizes, dtype=np.float64), np.maximum(np.asarray(seconds, dtype=np.float64), 1e-6)
    if len(alike):
        nearest = np.argsort(np.asarray(alike), kind="stable")[:LIKE]
        measured, took = measured[nearest], took[nearest]
    constant, slope = _line(measured, took)
    ratios = took / np.maximum(constant + slope * measured, 1e-9)
    low, likely, high = np.quantile(ratios, QUANTILES)
    each = size / units
    spread = SPREAD + SPREAD_BEYOND * max(0.0, math.log(each / measured.max()), math.log(measured.min() / each))
    middle = float(likely * (constant * units + slope * size))
    return Expected(
        low=min(float(low / likely), 1 / (1 + spread)) * middle,
        likely=middle,
        high=max(float(high / likely), 1 + spread) * middle,
    )


def _line(sizes: NDArray[np.float64], seconds: NDArray[np.float64]) -> tuple[float, float]:
    """The constant part and the part by size."""
    through_origin = float(np.median(seconds / sizes))
    if sizes.max() < ENOUGH_FOR_A_LINE * sizes.min():
        return 0.0, through_origin
    terms = np.stack([1 / seconds, sizes / seconds], axis=1)
    (constant, slope), *_ = np.linalg.lstsq(terms, np.ones(len(sizes)), rcond=None)
    if slope <= 0:
        return float(np.median(seconds)), 0.0
    if constant < 0:
        return 0.0, through_origin
    return float(constant), float(slope)
