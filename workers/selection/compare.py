"""How alike two subsets are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """|A and B| / |A or B| of two subsets, 1 for two empty ones.

    Args:
        one: Row numbers, shape (k,).
        other: Row numbers, shape (l,).
    """
    union = np.union1d(one, other).size
    return np.intersect1d(one, other).size / union if union else 1.0
