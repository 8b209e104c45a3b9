"""Orders that need no marginal gains: by norm and at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def by_norm(norms: Tensor, count: int) -> NDArray[np.int64]:
    """The rows with the largest norms (ties: the lowest index), zero rows never.

    Args:
        norms: Or their squares, shape (n,), float64.
        count: Rows to pick.

    Returns:
        At most `count` row numbers, largest norm first.
    """
    order = torch.sort(norms, descending=True, stable=True).indices[:count]
    order = order[norms[order] > 0]
    return order.cpu().numpy().astype(np.int64)


def at_random(usable: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """A uniform sample without replacement, in random order.

    Args:
        usable: Row numbers to draw from, shape (n,), int64.
        count: Rows to pick, at most n.
        seed: Of the draw.
    """
    return np.random.default_rng(seed).permutation(usable)[:count]
