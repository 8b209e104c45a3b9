"""Whether subsets with more information train better: Spearman's rank correlation and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import atanh, sqrt, tanh
from typing import TYPE_CHECKING

from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_POINTS = 4
"""Fewer have no interval."""


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's coefficient.

    Attributes:
        coefficient: In [-1, 1]; None where either side is the same for all points.
        interval: From and to, 95%; None where there is no coefficient, or fewer than four points.
    """

    coefficient: float | None
    interval: tuple[float, float] | None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> RankCorrelation:
    """Spearman's coefficient r of n pairs, with the interval of Bonett and Wright (2000).

    The interval is tanh(atanh r +- 1.96 sqrt((1 + r^2 / 2) / (n - 3))). At r = +-1 it would have no width, so there the
    coefficient is taken of the order next to it, in which two neighbours have changed places:
    1 - 12 / (n (n^2 - 1)).
    """
    if min(len(set(x)), len(set(y))) < 2:  # noqa: PLR2004 - nothing to rank
        return RankCorrelation(None, None)
    coefficient = float(stats.spearmanr(x, y).statistic)
    count = len(x)
    if count < FEWEST_POINTS:
        return RankCorrelation(coefficient, None)
    nearest = 1 - 12 / (count * (count**2 - 1))
    inner = max(-nearest, min(nearest, coefficient))
    half = float(stats.norm.ppf(0.975)) * sqrt((1 + inner**2 / 2) / (count - 3))
    return RankCorrelation(
        coefficient, (min(coefficient, tanh(atanh(inner) - half)), max(coefficient, tanh(atanh(inner) + half)))
    )
