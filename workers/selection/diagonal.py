"""The diagonal score of the published code, for reproducing its index lists and nothing else.

Its gain is log(1 + alpha sum_j z_j^2 / den_j) with den_j = 1 + alpha sum over picks of z_j^4. That is the marginal
of no set function: see docs/selection.md before comparing it with anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.picked import Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.problem import Problem
    from workers.selection.progress import Watch
    from workers.selection.result import StopReason


#: Rows looked at first in a step, and how their number grows while the best may lie elsewhere.
_FIRST_LOOK, _GROWTH = 16, 4

#: Bounds are raised by this share, for the rounding of sums taken in another order.
_ROUNDING = 1e-5


def diagonal_greedy(problem: Problem, watch: Watch) -> tuple[NDArray[np.int64], StopReason]:
    """Greedy on the diagonal score with the conflict penalty (ties: the lowest index).

    den only grows, so an old gain bounds today's score, and a step looks at the rows with the largest old gains
    until the best of them beats the next bound. Gains are computed in the bulk precision, as published.

    Args:
        problem: What is selected from.
        watch: The caller's callbacks.

    Returns:
        Row numbers in order, and why it ended.
    """
    score = _DiagonalScore(problem)
    order: list[int] = []
    first = 0.0
    while len(order) < problem.budget:
        found = score.best()
        if found is None:
            return np.array(order, dtype=np.int64), "exhausted"
        row, gain = found
        first = first or gain
        if problem.early_stop_ratio is not None and order and gain <= problem.early_stop_ratio * first:
            return np.array(order, dtype=np.int64), "early_stop"
        score.add(row)
        order.append(row)
        watch.step("picking", len(order), problem.budget)
    return np.array(order, dtype=np.int64), "budget"


def diagonal_top_k(problem: Problem) -> tuple[NDArray[np.int64], StopReason]:
    """The rows of the largest published gains at the empty set, log(1 + alpha |z|^2) (ties: the lowest index).

    An early stop leaves out the first gain at omega times the largest, and all after it.

    Args:
        problem: What is selected from.

    Returns:
        Row numbers in order, and why they are no more.
    """
    gains = torch.where(problem.eligible, problem.base_gains(), 0.0)
    order = torch.sort(gains, descending=True, stable=True).indices[: problem.budget]
    order = order[gains[order] > 0]
    stop: StopReason = "budget" if len(order) == problem.budget else "exhausted"
    if problem.early_stop_ratio is not None and len(order):
        low = torch.nonzero(gains[order] <= problem.early_stop_ratio * gains[order[0]]).flatten()
        low = low[low > 0]
        if len(low):
            order, stop = order[: int(low[0])], "early_stop"
    return order.cpu().numpy(), stop


class _DiagonalScore:
    """den, the mean of the picks, and an old gain of every row."""

    def __init__(self, problem: Problem) -> None:
        sketches = problem.sketches
        self._problem = problem
        self._den = torch.ones(sketches.p, dtype=sketches.dtype, device=sketches.device)
        self._mean = Mean(sketches.p)
        self._bounds = torch.where(problem.eligible, problem.base_gains() * (1 + _ROUNDING), -torch.inf)

    def best(self) -> tuple[int, float] | None:
        """The row with the largest score and its gain; None when no row is left."""
        look = _FIRST_LOOK
        while True:
            top = self._bounds.topk(min(look + 1, self._bounds.numel()))
            rows = top.indices[:look]
            rows = rows[top.values[:look] > -torch.inf].sort().values
            if rows.numel() == 0:
                return None
            gains, scores = self._scores(rows)
            at = int(scores.argmax())
            rest = float(top.values[-1]) if top.values.numel() > look else -torch.inf
            if float(scores[at]) > rest or rest == -torch.inf:
                return int(rows[at]), float(gains[at])
            look *= _GROWTH

    def add(self, row: int) -> None:
        """Take a row into den and the mean."""
        sketches = self._problem.sketches
        sketch = sketches.gather(torch.tensor([row], device=sketches.device), sketches.dtype)[0]
        self._den += self._problem.alpha * sketch.square().square()
        self._mean.add(sketch.double().cpu().numpy())
        self._bounds[row] = -torch.inf

    def _scores(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gains and scores of some rows today; their bounds are brought up to date on the way."""
        sketches = self._problem.sketches.gather(rows, self._den.dtype)
        gains = torch.log1p(self._problem.alpha * (sketches.square() @ self._den.reciprocal())).double()
        self._bounds[rows] = gains * (1 + _ROUNDING)
        if self._problem.penalty == 0 or self._mean.unit is None:
            return gains, gains
        along = sketches @ torch.from_numpy(self._mean.unit).to(sketches)
        conflicts = (-along.double() / self._problem.norms[rows]).clamp_(0.0, 1.0)
        return gains, gains - self._problem.penalty * conflicts
