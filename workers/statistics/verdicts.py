"""What a proof says of an arm against another: better, worse, equivalent, or that more runs are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from statsmodels.stats.multitest import multipletests

from app.core.contracts.proof_result import Verdict
from workers.statistics.two_level import CONFIDENCE, estimate, half_widths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from workers.statistics.two_level import Estimate

FEWEST = 2
"""Seeds, and held-out items: one of either has no spread, and what has none would look sure."""
MOST_RUNS = 1000
"""Seeds that are thought of: where more would be needed, more held-out rows are what is needed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The comparison of two arms by one metric.

    Attributes:
        estimate: Of the paired difference; None with fewer than two seeds that both arms have, or one item.
        adjusted_p: The p-value after Holm's correction over the metrics; None likewise.
        verdict: What it says.
        runs_needed: Seeds that would decide it, if differences and spread stay as they are; None where it is decided,
            or where no number of seeds would.
    """

    estimate: Estimate | None
    adjusted_p: float | None
    verdict: Verdict
    runs_needed: int | None


def decide(
    differences: Mapping[str, NDArray[np.float64]],
    clusters: Mapping[str, NDArray[np.int64]],
    smallest_effects: Mapping[str, float],
    lower_is_better: Mapping[str, bool],
) -> dict[str, Decision]:
    """Compare two arms by every metric.

    Args:
        differences: Arm minus the other by metric, shape (S, I): seeds that both have by held-out items.
        clusters: The number of each item's source by metric, shape (I,).
        smallest_effects: By metric, in its unit: a difference that is smaller does not matter.
        lower_is_better: By metric.
    """
    found = {
        metric: estimate(table, clusters[metric]) for metric, table in differences.items() if min(table.shape) >= FEWEST
    }
    adjusted = dict(zip(found, holm([one.p_value for one in found.values()]), strict=True))
    decisions = {}
    for metric in differences:
        one = found.get(metric)
        if one is None:
            decisions[metric] = Decision(None, None, Verdict.NOT_ENOUGH_RUNS, None)
            continue
        effect = smallest_effects[metric]
        verdict = verdict_of(one, adjusted[metric], effect, lower_is_better=lower_is_better[metric])
        needed = None
        if verdict is Verdict.NOT_ENOUGH_RUNS:
            needed = runs_needed(one, effect, int(clusters[metric].max()) + 1)
        decisions[metric] = Decision(one, adjusted[metric], verdict, needed)
    return decisions


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction: the chance of any false finding stays at the level."""
    if not p_values:
        return []
    adjusted: NDArray[np.float64] = multipletests(p_values, alpha=1 - CONFIDENCE, method="holm")[1]
    return [float(value) for value in adjusted]


def verdict_of(one: Estimate, adjusted_p: float, smallest_effect: float, *, lower_is_better: bool) -> Verdict:
    """Equivalent comes first: a difference that is surely there and surely too small to matter is none."""
    if -smallest_effect <= one.interval[0] and one.interval[1] <= smallest_effect:
        return Verdict.EQUIVALENT
    if adjusted_p < 1 - CONFIDENCE:
        return Verdict.BETTER if (one.mean < 0) is lower_is_better else Verdict.WORSE
    return Verdict.NOT_ENOUGH_RUNS


def runs_needed(one: Estimate, smallest_effect: float, clusters: int) -> int | None:
    """The fewest seeds, more than there are, with which the interval would be without 0 or within +- the effect.

    The mean is taken to stay. Of the standard error's square, the items' own part stays and the rest shrinks as one
    over the number of seeds.
    """
    seeds = np.arange(one.seeds + 1, MOST_RUNS + 1, dtype=np.float64)
    shrinking = (one.standard_error**2 - one.lasting) * one.seeds / seeds
    half, _ = half_widths(shrinking, np.full_like(seeds, one.lasting), seeds, clusters)
    enough = half < max(abs(one.mean), smallest_effect - abs(one.mean))
    return int(seeds[int(np.argmax(enough))]) if bool(np.any(enough)) else None
