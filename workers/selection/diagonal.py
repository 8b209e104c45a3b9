"""The diagonal score of the published code, for reproducing its index lists and nothing else.

Its gain is log(1 + alpha sum_j z_j^2 / den_j) with den_j = 1 + alpha sum over picks of z_j^4. That is the marginal
of no set function: see docs/selection.md before comparing it with anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.conflict import PickDirection, conflict_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.selection.problem import Problem
    from workers.selection.progress import Watch
    from workers.selection.result import StopReason


def diagonal_greedy(problem: Problem, watch: Watch) -> tuple[NDArray[np.int64], StopReason]:
    """Greedy on the diagonal score with the conflict penalty (ties: the lowest index).

    Args:
        problem: What is selected from.
        watch: The caller's callbacks.

    Returns:
        Row numbers in order, and why it ended.
    """
    sketches = problem.sketches
    den = torch.ones(sketches.p, dtype=sketches.dtype, device=sketches.device)
    direction = PickDirection(sketches.p, sketches.device)
    norms = problem.squared_norms.sqrt()
    open_rows = problem.eligible.clone()
    order: list[int] = []
    first = 0.0
    while len(order) < problem.budget:
        gains = torch.empty(sketches.n, dtype=sketches.dtype, device=sketches.device)
        conflicts = torch.zeros(sketches.n, dtype=torch.float64, device=sketches.device)
        for where, tile in sketches.tiles():
            gains[where] = torch.log1p(problem.alpha * (tile.square() @ den.reciprocal()))
            if problem.penalty > 0 and direction.unit is not None:
                along = tile @ direction.unit.to(tile.dtype)
                conflicts[where] = conflict_of(along.double(), norms[where])
        scores = torch.where(open_rows, gains - problem.penalty * conflicts, -torch.inf)
        row = int(scores.argmax())
        if not open_rows[row]:
            return np.array(order, dtype=np.int64), "exhausted"
        gain = float(gains[row])
        first = first or gain
        if problem.early_stop_ratio is not None and order and gain <= problem.early_stop_ratio * first:
            return np.array(order, dtype=np.int64), "early_stop"
        sketch = sketches.gather(torch.tensor([row], device=sketches.device), sketches.dtype)[0]
        den += problem.alpha * sketch.square().square()
        direction.add(sketch.double(), float(norms[row]))
        open_rows[row] = False
        order.append(row)
        watch.step("picking", len(order), problem.budget)
    return np.array(order, dtype=np.int64), "budget"
