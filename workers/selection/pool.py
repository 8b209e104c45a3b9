"""All rows, each with an upper bound on its score; brought up to date together, by one matrix product.

A row's residual is known as an estimate and its error. The estimate starts from an exact value a (the anchor) and loses
(u . z)^2 for each pick. These sum to at most a, so by Cauchy and Schwarz its error is that of `residual_error` at a. A
row of a front gets a new anchor: near-duplicates of huge rows soon have a tiny error too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from workers.selection.rounding import COSINE_EPSILONS, EXACT, bulk_share, gain_error, residual_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.picked import Mean, Picked
    from workers.selection.problem import Problem

#: Rows of a tile of a sweep: it and its products stay in a processor's cache.
_ROWS_SWEPT = 1024

#: Gains known to within this many nats are good enough for a certificate.
_VAGUE = 1e-4


class Outside(NamedTuple):
    """What no row outside a front can exceed, the width within which it ties included."""

    score: float  # by the gains alone, for good
    while_near: float  # while no conflict has fallen by more than `allowance` since the sum of the picks was `total`
    allowance: float
    total: NDArray[np.float64]
    price: float  # what a conflict of 1 takes off a score at most

    def bound(self, mean: Mean) -> float:
        """Bound on scores with today's mean of the picks."""
        if self.while_near == self.score:
            return self.score
        fallen = max(0.0, mean.fall_since(self.total) - self.allowance)
        return min(self.score, self.while_near + self.price * fallen)


class Pool:
    """Residuals and conflicts of all rows as of the last sweep, and which of them may still be picked."""

    def __init__(self, problem: Problem) -> None:
        sketches = problem.sketches
        self._open = problem.eligible.clone()
        self._problem = problem
        self._share = bulk_share(sketches.p, sketches.dtype)
        self._residuals = problem.squared_norms.clone()
        self._errors = residual_error(self._residuals, problem.norms, self._share)
        self._conflicts = torch.zeros_like(self._residuals)
        self._total = np.zeros(sketches.p)

    def sweep(self, directions: Tensor, mean: Mean) -> None:
        """Bring all rows up to date.

        Args:
            directions: u of the picks since the last sweep, shape (b, p), float64.
            mean: The mean of all picks.
        """
        sketches, norms = self._problem.sketches, self._problem.norms
        unit = None if self._problem.penalty == 0 or mean.unit is None else torch.from_numpy(mean.unit).to(directions)
        wanted = directions if unit is None else torch.cat([directions, unit.unsqueeze(0)])
        wanted = wanted.to(sketches.dtype)
        self._total = mean.total.copy()
        self._conflicts.zero_()
        for where, tile in sketches.tiles(rows=_ROWS_SWEPT):
            products = wanted @ tile.T
            if unit is not None:
                self._conflicts[where] = (-products[-1] / norms[where]).clamp_(0.0, 1.0).nan_to_num_(0.0)
            self._residuals[where] -= products[: len(directions)].square_().sum(dim=0, dtype=torch.float64)
        self._residuals.clamp_min_(0.0)

    def close(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> None:
        """Take rows, by their numbers or a mask, out of the competition for good."""
        self._open[torch.from_numpy(rows).to(self._open.device)] = False

    def anchor(self, rows: NDArray[np.int64], residuals: NDArray[np.float64], errors: NDArray[np.float64]) -> None:
        """Put residuals that a front knows, and their errors, in place of estimates; each of shape (m,)."""
        at, exact, error = (torch.from_numpy(part).to(self._open.device) for part in (rows, residuals, errors))
        self._residuals[at] = exact
        self._errors[at] = error + residual_error(exact, self._problem.norms[at], self._share)

    def first(self) -> int | None:
        """The row to pick into the empty set, by exact gains, however many tie; None if no row is open."""
        problem, norms = self._problem, self._problem.norms
        if not bool(self._open.any()):
            return None
        scores = (problem.base_gains() - problem.price) * problem.scale
        error = gain_error(problem.squared_norms, residual_error(problem.squared_norms, norms, EXACT), problem.alpha)
        width = problem.widths + problem.scale * error
        least = (scores - width)[self._open].max()
        return int(((scores + width >= least) & self._open).nonzero()[0])

    def leaders(self, size: int, allowance: float) -> tuple[Tensor, Outside]:
        """The rows with the largest score bounds, and what the others cannot exceed.

        Args:
            size: Rows wanted.
            allowance: How far conflicts may fall while the rows are in use, as a guess.

        Returns:
            Row numbers, ascending, shape (m,), m <= size, m = 0 if no row is open; and the bound on the rest.
        """
        problem, penalty = self._problem, self._problem.penalty
        scores = (self._upper_gains() - problem.price) * problem.scale + problem.widths
        scores.masked_fill_(~self._open, -torch.inf)
        certain = allowance + COSINE_EPSILONS * torch.finfo(problem.sketches.dtype).eps
        near = scores - penalty * (self._conflicts - certain).clamp_min_(0.0) * problem.scale
        top = near.topk(min(size, len(near)), sorted=False)
        rows = top.indices[top.values > -torch.inf].sort().values
        rest, near_rest = (float(bounds.index_fill_(0, rows, -torch.inf).max()) for bounds in (scores, near))
        return rows, Outside(rest, near_rest, allowance, self._total, penalty * float(problem.scale.max()))

    def gains(self) -> Tensor:
        """Upper bounds on the gains of the rows that may still be picked, shape (n,), nats; 0 for others."""
        return torch.where(self._open, self._upper_gains(), 0.0)

    def bound_outside(self, picked: Picked, bound: Callable[[Tensor], tuple[float, Tensor]]) -> float:
        """A bound that is made of the gains of the rows outside the set, wrong by rounding alone.

        Args:
            picked: The set, swept.
            bound: From gains of all rows, shape (n,), nats, 0 for picks, to the bound and the rows that it is made of.
        """
        gains = torch.where(self._problem.eligible, self._upper_gains(), 0.0)
        gains[picked.rows] = 0.0
        lower = torch.log1p(self._problem.alpha * (self._residuals - self._errors).clamp_min_(0.0))
        while True:
            value, rows = bound(gains)
            vague = rows[gains[rows] - lower[rows] > _VAGUE]
            if len(vague) == 0:
                return value
            gains[vague] = lower[vague] = picked.upper_gains(vague)

    def _upper_gains(self) -> Tensor:
        return torch.log1p(self._problem.alpha * (self._residuals + self._errors))
