"""What the figures of a job are drawn from, small enough for one database field however many rows were picked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.selection.config import GREEDY_METHODS
from workers.statistics.cosines import mean_cosines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.data.sources import SourceCount
    from workers.selection import Selection

MOST_BINS, FEWEST_BINS = 24, 5
SCATTER_POINTS = 2000
CURVE_POINTS = 1000
SHORT_CURVE_POINTS = 60
SOURCES_NAMED = 20
PAPER_EARLY_STOP_RATIO = 0.5
"""The omega of the paper, which is what a job that sets none is shown."""


def short_curve(log_det: NDArray[np.float64]) -> dict[str, Any]:
    """A curve at 60 ranks at most, the last among them, for a small figure."""
    count = len(log_det)
    places = np.unique(np.linspace(0, max(count - 1, 0), min(count, SHORT_CURVE_POINTS)).astype(np.int64))
    return {"rank": (places + 1).tolist(), "log_det": log_det[places].tolist()}


def conflict_before_after(
    values: NDArray[np.float32], picked: NDArray[np.int64], seed: int, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Cosines of rows with the mean of the set that they are in, for three sets: before and after the selection.

    The sets are `all` candidates, as many of them drawn at `random` as were picked (a mean of fewer rows has more of
    each row in it, so this is the fair comparison), and those `picked`.

    Args:
        values: All sketches, shape (n, p).
        picked: Places of the picks, shape (k,).
        seed: Of the draw.
        should_stop: Asked now and then; True gives up.
    """
    n, k = len(values), len(picked)
    drawn = np.random.default_rng(seed).permutation(n)[:k]
    sets = {"all": np.arange(n), "random": drawn, "picked": picked}
    cosines = {name: mean_cosines(values, rows, should_stop) for name, rows in sets.items()}
    edges = _edges_around_zero(
        min(float(one.min()) for one in cosines.values()),
        max(float(one.max()) for one in cosines.values()),
        bins_for(k),
    )
    return {
        "edges": _short(edges),
        "sets": {
            name: {
                "rows": len(one),
                "counts": np.histogram(one, bins=edges)[0].tolist(),
                "mean_conflict": float(np.maximum(-one, 0).mean()),
                "conflicting_share": float((one < 0).mean()),
            }
            for name, one in cosines.items()
        },
    }


def bins_for(picks: int) -> int:
    """How many bins show picks without gaps that only chance made: Rice's rule, 5 to 24."""
    return min(max(math.ceil(2 * math.cbrt(picks)), FEWEST_BINS), MOST_BINS)


def _edges_around_zero(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Edges of equal bins over a range, zero among them and never the first, so that no conflict shows as none."""
    width = (max(high, 0.0) - min(low, 0.0)) / bins or 1 / bins
    # The largest value of all is inside the last bin, not on its edge, whatever rounding does to the edge.
    numbers = np.arange(min(math.floor(low / width), -2), max(math.floor(high / width), 0) + 2)
    return width * numbers.astype(np.float64)


def lengths(tokens: NDArray[np.int64], picked: NDArray[np.int64]) -> dict[str, Any]:
    """Tokens of the picked rows against those of all.

    Args:
        tokens: Of each candidate, shape (n,).
        picked: Places of the picks, shape (k,).
    """
    edges = np.unique(np.linspace(0, int(tokens.max()) + 1, bins_for(len(picked)) + 1).astype(np.int64))
    return {
        "edges": edges.tolist(),
        **{
            name: {
                "counts": np.histogram(one, bins=edges)[0].tolist(),
                "mean": float(one.mean()),
                "median": float(np.median(one)),
            }
            for name, one in (("all", tokens), ("picked", tokens[picked]))
        },
    }


def sources(column: str, counts: Sequence[SourceCount]) -> dict[str, Any]:
    """The largest sources by name, and all others together."""
    named = [one for one in counts if one.value is not None][:SOURCES_NAMED]
    other = {
        "all": sum(one.candidates for one in counts) - sum(one.candidates for one in named),
        "picked": sum(one.picked for one in counts) - sum(one.picked for one in named),
    }
    return {
        "column": column,
        "values": [{"value": one.value, "all": one.candidates, "picked": one.picked} for one in named],
        "other": other if other["all"] else None,
    }


def epsilon_conflict(selection: Selection) -> dict[str, Any]:
    """Epsilon and conflict of the picks, evenly thinned by rank to at most 2,000 points."""
    ranks = thinned(len(selection.indices), SCATTER_POINTS)
    return {
        "rank": ranks.tolist(),
        "conflict": _short(selection.conflicts[ranks - 1]),
        "epsilon": _short(selection.epsilons[ranks - 1]),
    }


def early_stop(selection: Selection, method: str, ratio: float | None) -> dict[str, Any] | None:
    """Where the early stop came, or where that of the paper would have come; None if the method has no gains to test.

    Args:
        selection: The selection asked for.
        method: Its method.
        ratio: Omega as asked for, or None.
    """
    if method not in GREEDY_METHODS:
        return None
    used = PAPER_EARLY_STOP_RATIO if ratio is None else ratio
    threshold = used * float(selection.marginal_gains[0])
    below = np.flatnonzero(selection.marginal_gains <= threshold).tolist()
    if selection.stop_reason == "early_stop":
        below = [len(selection.indices)]  # the pick that fell below is not among those that were kept
    kept = below[0] if below else None
    return {"ratio": used, "requested": ratio is not None, "threshold": threshold, "kept": kept}


def thinned_curve(runs: Sequence[Selection]) -> dict[str, Any]:
    """The curve of a method at no more than 1,000 ranks; over several runs their mean, and deviation with n - 1."""
    ranks = thinned(min(len(run.indices) for run in runs), CURVE_POINTS)
    log_det = np.stack([run.log_det[ranks - 1] for run in runs])
    gains = np.stack([run.marginal_gains[ranks - 1] for run in runs])
    return {
        "runs": len(runs),
        "rank": ranks.tolist(),
        "log_det": _short(log_det.mean(axis=0)),
        "log_det_std": _short(log_det.std(axis=0, ddof=1)) if len(runs) > 1 else None,
        "marginal_gains": _short(gains.mean(axis=0)),
    }


def spread(values: Sequence[float]) -> Mapping[str, float]:
    """Mean of some runs and its standard deviation, with n - 1 in the denominator; 0 for one run."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the ranks 1 to `count`, evenly; the last is among them."""
    points = min(count, most)
    return np.unique(-(-count * np.arange(1, points + 1) // points))


def _short(values: NDArray[np.float64]) -> list[float]:
    """Six significant digits: more than a figure shows, and half the bytes."""
    return [float(f"{value:.6g}") for value in values]
