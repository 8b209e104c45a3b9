"""The front: the few rows that can win soon, copied together and up to date with every pick.

It is on the host and in float64, whatever the device: a pick costs one product of a small matrix with a vector and some
operations on vectors as long as the front, a few microseconds each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.rounding import COSINE_EPSILONS, EPS64, EXACT, gain_error, residual_error
from workers.selection.whitening import BLOCK, Whitener

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.picked import Mean
    from workers.selection.problem import Problem
    from workers.selection.whitening import Steps

#: A row is whitened anew after this many changes of W; each adds an eighth of `EXACT` to its error.
_CHANGES = 64


class Front:
    """Some rows with their scores after every pick.

    With V the rows whitened by the picks before the front and w_t = N_t v_t, N_t the inverse of I + alpha times the sum
    of v v^T over the picks from it so far, the residual of row j falls by alpha (w_t . v_j)^2 / (1 + alpha r_t).

    Attributes:
        rows: Row numbers, shape (m,), int64, ascending.
        picked: Where in the front its picks are, in order.
        residuals, errors: |W z|^2 of its rows today, and their errors, shape (m,).
        sketches, white: Its rows as they are, in bulk precision, and with W of the picks before it, shape (m, p).
        entered, closed: Which rows the front before had not, and which are or may not be picked, shape (m,), bool.
        changes: How often each was turned since it was whitened, shape (m,).
    """

    def __init__(self, problem: Problem, rows: Tensor, whitener: Whitener, last: Front | None, steps: Steps) -> None:
        """Copy rows, ascending; whiten with W of all picks those that the front before has not.

        Args:
            problem: The rows' problem.
            rows: Row numbers.
            whitener: W of all picks.
            last: The front before.
            steps: What the picks from it changed in W.
        """
        count, p = len(rows), problem.sketches.p
        self.rows: NDArray[np.int64] = rows.cpu().numpy()
        self.picked: list[int] = []
        self._alpha, self._penalty = problem.alpha, problem.penalty
        self._cosine_error = COSINE_EPSILONS * torch.finfo(problem.sketches.dtype).eps
        self.sketches = problem.sketches.gather(rows, problem.sketches.dtype).cpu().numpy()
        self._norms, self._scale, self._price, self._widths = (
            values[rows].cpu().numpy() for values in (problem.norms, problem.scale, problem.price, problem.widths)
        )
        self._largest_scale, self._widest = float(self._scale.max()), float(self._widths.max())
        self._negative_reciprocals = -1.0 / self._norms
        self.white, self.changes = np.empty((count, p)), np.zeros(count)
        self.entered = self._take_over(last, steps)
        if self.entered.any():
            fresh = problem.sketches.gather(rows[torch.from_numpy(self.entered).to(rows.device)], torch.float64)
            self.white[self.entered] = whitener.whiten(fresh).cpu().numpy()
        self.residuals: NDArray[np.float64] = np.einsum("ij,ij->i", self.white, self.white)
        share = EXACT * (1.0 + self.changes / 8.0)
        # The residuals to come are differences: wrong by some epsilons of the residual that they started from.
        self.errors = residual_error(self.residuals, self._norms, share) + 16.0 * EPS64 * self.residuals
        # How far apart two scores have to be not to be near.
        self._apart = 2.0 * self._widest + 4.0 * self._alpha * float((self._scale * self.errors).max())
        self._conflicts, self.closed = np.zeros(count), np.zeros(count, dtype=bool)
        self._directions, self._weights = np.empty((BLOCK, p)), np.empty(BLOCK)
        self._products = np.empty((BLOCK, count))

    def best(self, mean: Mean, outside: float) -> int | None:
        """Where the row with the largest score of all is; None if a row outside, as its bound says, may be it."""
        scores = np.log1p(self._alpha * self.residuals)
        scores -= self._penalty * self._conflicts + self._price
        scores *= self._scale
        scores[self.closed] = -np.inf
        leader = int(scores.argmax())
        best = float(scores[leader])
        if best == -math.inf:
            return None
        doubt = self._largest_scale * self._penalty * (self._cosine_error + mean.error)
        # Twice the error of the gain: it blurs the score, and it widens the interval in which others tie with it.
        growth = 1.0 + self._alpha * float(self.residuals[leader])
        doubt_of_best = doubt + 2.0 * self._alpha * float(self.errors[leader]) * float(self._scale[leader]) / growth
        if best - doubt_of_best - float(self._widths[leader]) <= outside:
            return None
        near = scores >= best - self._apart - 2.0 * doubt
        return leader if np.count_nonzero(near) == 1 else self._decide(np.flatnonzero(near), mean)

    def gain(self, at: int, *, exact: bool = False) -> float:
        """Marginal gain of a row, nats, by where it is; `exact` as the norm of a vector, otherwise as a difference."""
        residual = self._exact_residuals(np.array([at]))[0] if exact else self.residuals[at]
        return math.log1p(self._alpha * float(residual))

    def take(self, at: int, mean: Mean) -> None:
        """Bring all rows up to date with a pick, by where it is, and with the mean that it is in."""
        count = len(self.picked)
        # N v = v - sum of weight_s w_s (w_s . v) over the picks from the front so far
        known = self._products[:count, at] * self._weights[:count]
        direction = self.white[at] - known @ self._directions[:count]
        products = np.dot(self.white, direction, out=self._products[count])
        weight = self._alpha / (1.0 + self._alpha * float(self.residuals[at]))
        self._directions[count], self._weights[count] = direction, weight
        self.residuals -= weight * np.square(products)
        np.maximum(self.residuals, 0.0, out=self.residuals)
        self.closed[at] = True
        self.picked.append(at)
        self.turn(mean)

    def turn(self, mean: Mean) -> None:
        """Bring the conflicts up to date with the mean of the picks."""
        if self._penalty == 0 or mean.unit is None:
            self._conflicts = np.zeros(len(self.rows))
        else:
            self._conflicts = self.sketches @ mean.unit.astype(self.sketches.dtype) * self._negative_reciprocals
            np.maximum(self._conflicts, 0.0, out=self._conflicts)

    def _take_over(self, last: Front | None, steps: Steps) -> NDArray[np.bool_]:
        """Copy the whitened rows that the front before has, turned by `steps`; a mask of those that it has not."""
        if last is None:
            return np.ones(len(self.rows), dtype=bool)
        at = np.searchsorted(last.rows, self.rows)
        at[at == len(last.rows)] = 0
        changes = last.changes[at] + len(steps)
        stay: NDArray[np.bool_] = (last.rows[at] == self.rows) & (changes < _CHANGES)
        white = torch.from_numpy(last.white[at[stay]])
        for left, update in steps:
            whitened, coupling = left.cpu(), update.cpu()
            white.addmm_((white @ whitened.T) @ coupling.T, whitened, alpha=-1.0)
        self.white[stay], self.changes[stay] = white, changes[stay]
        return np.invert(stay)

    def _decide(self, near: NDArray[np.int64], mean: Mean) -> int:
        """The best of some rows, exactly.

        Two scores tie when they differ by less than the widths of both rows and the rounding of exact gains, and the
        first of the rows that tie with the best wins. Where the errors of the front leave open which rows tie, their
        residuals are computed anew from the whitened rows.
        """
        prices = self._price[near]
        if self._penalty and mean.unit is not None:
            cosines = self.sketches[near].astype(np.float64) @ mean.unit / self._norms[near]
            prices = prices + self._penalty * np.clip(-cosines, 0.0, 1.0)
        scores, tie = self._scores_and_ties(near, self.residuals[near], prices)
        error = gain_error(self.residuals[near], self.errors[near], self._alpha) + self._penalty * mean.error
        error *= self._scale[near]
        possible = scores + tie + error >= (scores - tie - error).max()
        certain = scores + tie - error >= (scores - tie + error).max()
        if not (possible == certain).all():
            near, prices = near[possible], prices[possible]
            scores, tie = self._scores_and_ties(near, self._exact_residuals(near), prices)
            possible = scores + tie >= (scores - tie).max()
        return int(near[possible.argmax()])

    def _scores_and_ties(
        self, near: NDArray[np.int64], residuals: NDArray[np.float64], prices: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of some rows, and how close to each of them others tie with it."""
        gains = np.log1p(self._alpha * residuals)
        rounding = gain_error(residuals, residual_error(residuals, self._norms[near], EXACT), self._alpha)
        return self._scale[near] * (gains - prices), self._widths[near] + self._scale[near] * rounding

    def _exact_residuals(self, near: NDArray[np.int64]) -> NDArray[np.float64]:
        """|W z|^2 of some rows with all picks in W, as norms of vectors."""
        whitener = Whitener(self.white.shape[1], self._alpha, BLOCK, torch.device("cpu"))
        if self.picked:
            whitener.absorb(torch.from_numpy(self.white[self.picked]))
        found: NDArray[np.float64] = whitener.whiten(torch.from_numpy(self.white[near])).square_().sum(dim=1).numpy()
        return found
