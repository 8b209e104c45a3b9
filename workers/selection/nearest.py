"""Rows nearest to target rows, by turns, as RDS+ picks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def by_turns(
    similarities: NDArray[np.floating], groups: NDArray[np.int64], count: int | None = None
) -> NDArray[np.int64]:
    """Rows in the order in which target rows take them.

    The groups take turns, and within a group its target rows; whoever's turn it is takes the most similar row that is
    not taken yet (ties: the lowest row number).

    Args:
        similarities: Of each row to each target row, shape (n, q).
        groups: Group of each target row, shape (q,), 0 to g - 1, none empty.
        count: Rows to take; None for all.

    Returns:
        Shape (min(count, n),), int64.
    """
    rows, targets = similarities.shape
    wanted = rows if count is None else min(count, rows)
    orders = [np.argsort(-similarities[:, target], kind="stable") for target in range(targets)]
    reached, taken = [0] * targets, np.zeros(rows, dtype=np.bool_)
    order = np.empty(wanted, dtype=np.int64)
    turns = _turns(groups)
    for place in range(wanted):
        target = next(turns)
        while taken[orders[target][reached[target]]]:
            reached[target] += 1
        order[place] = orders[target][reached[target]]
        taken[order[place]] = True
    return order


def _turns(groups: NDArray[np.int64]) -> Iterator[int]:
    """Target rows in the order of their turns, without end."""
    members = [np.flatnonzero(groups == group).tolist() for group in range(int(groups.max()) + 1)]
    turn = 0
    while True:
        for rows in members:
            yield rows[turn % len(rows)]
        turn += 1
