"""Windows: the pool cut into pieces of a seeded permutation, each with its share of the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.selection.problem import BudgetError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """One piece of the pool.

    Attributes:
        rows: Row numbers, shape (m,), int64, in the order of the permutation.
        picks: How many of them to pick.
    """

    rows: NDArray[np.int64]
    picks: int


def cut(usable: NDArray[np.int64], size: int, picks: int | None, budget: int, seed: int) -> list[Window]:
    """Cut the usable rows into windows.

    Args:
        usable: Row numbers, shape (n,), int64.
        size: Rows in a window; the last window has what is left.
        picks: Picks in a full window (in the last one the same share, rounded up), until the budget is met;
            None spreads the budget evenly, so that after each window the share picked is the share seen.
        budget: Rows to pick in all.
        seed: Of the permutation.

    Returns:
        The windows that have anything to pick; their picks sum to the budget.

    Raises:
        BudgetError: If windows of `picks` cannot fill the budget.
    """
    order = np.random.default_rng(seed).permutation(usable)
    pieces = [order[start : start + size] for start in range(0, len(order), size)]
    windows: list[Window] = []
    taken = seen = 0
    for piece in pieces:
        seen += len(piece)
        share = budget * seen // len(order) - taken if picks is None else -(-picks * len(piece) // size)
        share = min(share, budget - taken)
        taken += share
        if share:
            windows.append(Window(piece, share))
    if taken < budget:
        raise BudgetError(budget, taken, f"{len(pieces)} windows of {size} rows give {picks} picks each")
    return windows
