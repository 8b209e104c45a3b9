"""Rows whose weighted gradients add up to a goal, as GRAD-MATCH picks them.

min over w >= 0 of |sum w_i z_i - goal|^2 with at most k rows: orthogonal matching pursuit takes the row along which the
residual is longest, and then the best weights of all rows that are taken, by the inner loop of Lawson and Hanson's
non-negative least squares: a row whose weight would fall below 0 leaves. The objective falls with every row that is
taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.progress import Watch
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.progress import Progress

#: A row along which the residual has a smaller share of what the goal could have adds nothing but rounding.
_ROUNDING = 1e-6

#: A row whose part that is new to the rows taken has a smaller share of its squared norm depends on them.
_DEPENDENT = 1e-9

#: Rows taken, those that left later included, for each row wanted.
_MOST_TRIALS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Rows and what each of them stands for.

    Attributes:
        rows: In the order of picking, shape (k,), int64.
        weights: Shape (k,), float64, above 0.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]


def matching_pursuit(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    goal: NDArray[np.float64] | None,
    count: int,
    *,
    exclude: NDArray[np.int64] | None = None,
    device: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Matched:
    """At most `count` rows and their weights.

    Args:
        sketches: Shape (n, p), as for `select`.
        goal: What they should add up to, shape (p,); None for the sum of all rows.
        count: Rows to pick; fewer are picked where no further row brings the sum nearer to the goal.
        exclude: Rows that are part of the sum and never picked, shape (m,); None: no row.
        device: As in `SelectionConfig`.
        on_progress: As for `select`.
        should_stop: As for `select`.
    """
    rows, watch = Sketches(sketches, device), Watch(on_progress, should_stop)
    norms = rows.squared_norms(watch).sqrt()
    wanted = _sum(rows) if goal is None else torch.from_numpy(goal).to(norms)
    taken = _Taken(wanted)
    closed = norms == 0
    if exclude is not None:
        closed[torch.from_numpy(exclude).to(closed.device)] = True
    for _ in range(_MOST_TRIALS * count):
        if len(taken.rows) >= count:
            break
        residual = taken.residual()
        along = rows.products(residual.to(rows.dtype).unsqueeze(0))[:, 0].double()
        along[closed] = -torch.inf
        along[taken.rows] = -torch.inf
        best = int(along.argmax())
        if not float(along[best]) > _ROUNDING * float(norms[best] * torch.linalg.vector_norm(wanted)):
            break
        if not taken.take(best, rows.gather(torch.tensor([best]), torch.float64)[0]):
            closed[best] = True
        watch.step("picking", len(taken.rows), count)
    return Matched(np.array(taken.rows, dtype=np.int64), taken.weights.cpu().numpy())


def _sum(rows: Sketches) -> Tensor:
    """Of all rows, shape (p,), float64."""
    total = torch.zeros(rows.p, dtype=torch.float64, device=rows.device)
    for _, tile in rows.tiles():
        total += tile.sum(dim=0, dtype=torch.float64)
    return total


class _Taken:
    """The rows taken so far with the best weights, their sketches and a Cholesky factor of their inner products.

    Attributes:
        rows: Their row numbers.
        weights: Shape (k,), float64.
    """

    def __init__(self, goal: Tensor) -> None:
        self.rows: list[int] = []
        self.weights = goal.new_empty(0)
        self._goal = goal
        self._sketches = goal.new_empty(0, len(goal))
        self._factor = goal.new_empty(0, 0)

    def residual(self) -> Tensor:
        """The goal less what the rows add up to, shape (p,)."""
        return self._goal - self.weights @ self._sketches

    def take(self, row: int, sketch: Tensor) -> bool:
        """Take a row, shape (p,), and settle all weights; False, having changed nothing, if it can't help."""
        before = (list(self.rows), self.weights, self._sketches, self._factor)
        if not self._append(row, sketch):
            return False
        weights = torch.cat([self.weights, self.weights.new_zeros(1)])
        while True:
            wanted = torch.cholesky_solve((self._sketches @ self._goal).unsqueeze(1), self._factor)[:, 0]
            falling = wanted <= 0
            if not bool(falling.any()):
                self.weights = wanted
                return True
            if bool(falling[self.rows.index(row)]) and float(weights[self.rows.index(row)]) == 0.0:
                self.rows, self.weights, self._sketches, self._factor = before
                return False
            steps = torch.where(falling, weights / (weights - wanted), torch.inf)
            leaves = int(steps.argmin())
            weights = weights + steps[leaves] * (wanted - weights)
            stay = weights > 0
            stay[leaves] = False
            weights = weights[stay]
            self._keep(stay)

    def _append(self, row: int, sketch: Tensor) -> bool:
        """Extend the factor by a row; False if it depends on the others."""
        size, square = len(self.rows), float(sketch @ sketch)
        factor = sketch.new_zeros(size + 1, size + 1)
        if size:
            below = torch.linalg.solve_triangular(self._factor, (self._sketches @ sketch).unsqueeze(1), upper=False)[
                :, 0
            ]
            factor[:size, :size], factor[size, :size] = self._factor, below
        rest = square - float(factor[size, :size] @ factor[size, :size])
        if not rest > _DEPENDENT * square:
            return False
        factor[size, size] = rest**0.5
        self._factor = factor
        self._sketches = torch.cat([self._sketches, sketch.unsqueeze(0)])
        self.rows = [*self.rows, row]
        return True

    def _keep(self, stay: Tensor) -> None:
        """Let rows go, and factorise anew."""
        self.rows = [row for row, stays in zip(self.rows, stay.tolist(), strict=True) if stays]
        self._sketches = self._sketches[stay]
        self._factor = torch.linalg.cholesky(self._sketches @ self._sketches.T)
