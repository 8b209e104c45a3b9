"""How much the picks pulled against those before them, in numbers small enough for one database field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workers.statistics.subset import bins_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.selection import Selection

QUANTILES = (0.5, 0.9, 0.99)


def conflict_statistics(selection: Selection) -> dict[str, Any]:
    """Mean, largest, quantiles and histogram over [0, 1] of the picks' conflicts, and their rank correlations.

    Conflicts are near 0 for most data, so the bins are equal up to the largest conflict rather than up to 1.
    """
    conflicts = selection.conflicts
    highest = float(conflicts.max())
    counts, edges = np.histogram(conflicts, bins=bins_for(len(conflicts)), range=(0.0, highest if highest > 0 else 1.0))
    return {
        "mean": float(conflicts.mean()),
        "max": highest,
        "positive_fraction": float((conflicts > 0).mean()),
        "quantiles": {str(q): float(np.quantile(conflicts, q)) for q in QUANTILES},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "spearman_conflict_gain": spearman(conflicts, selection.marginal_gains),
        "spearman_conflict_epsilon": spearman(conflicts, np.abs(selection.epsilons)),
    }


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation of two arrays of shape (k,), ties at their mean rank; None if one is constant."""
    ranks_x, ranks_y = _ranks(x), _ranks(y)
    spread = float(ranks_x.std() * ranks_y.std())
    if spread == 0:
        return None
    covariance = float(((ranks_x - ranks_x.mean()) * (ranks_y - ranks_y.mean())).mean())
    return covariance / spread


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    means: NDArray[np.float64] = last - (sizes - 1) / 2
    return means[group]
