"""The front of the lazy greedy: the few rows that can win soon, copied together and always up to date.

Everything here is float64 and on the host, whatever the device: a pick costs one product of a small matrix with a
vector and some operations on vectors as long as the front, a few microseconds each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.conflict import COSINE_EPSILONS
from workers.selection.state import TIE, gain_error
from workers.selection.whitening import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.state import GreedyState
    from workers.selection.whitening import Absorbed

#: A residual is taken to be right within this many float64 epsilons of what it was made from.
_EPSILONS = 16.0 * float(np.finfo(np.float64).eps)

#: A row is whitened anew after this many changes of W, each of which adds to its rounding error.
_AGE = 64


@dataclass(frozen=True, slots=True)
class Outside:
    """What no row outside the front can exceed, in nats.

    Attributes:
        gain: Bound on gains, and so on scores, for good.
        score: Bound on scores while no conflict has fallen by more than `allowance` since it was computed.
        allowance: That fall.
    """

    gain: float
    score: float
    allowance: float

    def score_now(self, penalty: float, fall: float) -> float:
        """Bound on the scores outside.

        Args:
            penalty: Lambda, nats.
            fall: How much a conflict may have fallen since the bounds were computed.
        """
        return min(self.gain, self.score + penalty * max(0.0, fall - self.allowance))


class Front:
    """Some rows with their scores after every pick.

    With V the rows whitened by the picks before the front and w_t = N_t v_t, N_t the inverse of I + alpha times the sum
    of v v^T over the picks from it so far, the residual of row j falls by alpha (w_t . v_j)^2 / (1 + alpha r_t).

    Attributes:
        rows: Row numbers, shape (m,), int64, ascending.
        outside: Bounds on everything else.
        picked: Those of them picked since the front was built, in order.
    """

    def __init__(self, state: GreedyState, rows: Tensor, outside: Outside, last: Front | None) -> None:
        """Copy some rows.

        Args:
            state: The shared state of the greedy.
            rows: Row numbers, shape (m,), int64, ascending.
            outside: Bounds on the rows left out.
            last: The front before, whose whitened rows are taken over where they stay.
        """
        problem = state.problem
        self._state = state
        self._device = rows.device
        self._alpha, self._penalty = problem.alpha, problem.penalty
        self._sketches = problem.sketches.gather(rows, problem.sketches.dtype).cpu().numpy() if self._penalty else None
        self.rows = rows.cpu().numpy()
        self.white = np.empty((len(self.rows), problem.sketches.p))
        self.age = np.zeros(len(self.rows))
        self._take_over(last)
        state.on_absorbed = self._turn_white
        self._norms = state.norms[rows].cpu().numpy()
        self.outside = outside
        self.picked: list[int] = []
        self._count = 0
        self._measure()
        self._conflicts = np.zeros(len(rows))
        self._closed = np.zeros(len(rows))
        self._reciprocals = 1.0 / self._norms
        self._cosine_error = self._penalty * COSINE_EPSILONS * float(torch.finfo(problem.sketches.dtype).eps)
        self._scores = np.empty(len(rows))
        self._directions = np.empty((BLOCK, problem.sketches.p))
        self._products = np.empty((BLOCK, len(rows)))
        self._weights = np.empty(BLOCK)
        self._turn()

    @property
    def conflicts(self) -> NDArray[np.float64]:
        """Conflicts with the mean of the picks, to within the bulk precision, shape (m,)."""
        return self._conflicts

    def best(self, fall: float) -> int | None:
        """Where in the front the row with the largest score of all is; None if a row outside may have it.

        Args:
            fall: How much a conflict may have fallen since the bounds on the outside were computed.
        """
        scores = np.multiply(self._residuals, self._alpha, out=self._scores)
        np.log1p(scores, out=scores)
        if self._penalty:
            scores -= self._penalty * self._conflicts
        scores += self._closed
        leader = int(scores.argmax())
        best = float(scores[leader])
        doubt = self._cosine_error + self._penalty * self._state.direction.blur
        # Twice, as what it is made from blurs the score and widens the interval in which others tie with it.
        low = best - doubt - 2.0 * self._alpha * self._made_from[leader] / (1.0 + self._alpha * self._residuals[leader])
        tie = 2.0 * TIE * (abs(best) + 2.0 * self._penalty)  # so far apart are two scores that tie, at most
        if low - tie <= self.outside.score_now(self._penalty, fall):
            return None
        near = scores >= best - self._margin - 2.0 * doubt
        return leader if np.count_nonzero(near) == 1 else self._decide(np.flatnonzero(near))

    def gain(self, at: int) -> float:
        """Marginal gain of a row, nats.

        Args:
            at: Where it is in the front.
        """
        return math.log1p(self._alpha * float(self._residuals[at]))

    def take(self, at: int) -> None:
        """Take a row into the state, and bring all rows up to date with it.

        Args:
            at: Where it is in the front.
        """
        count = self._count
        # N v = v - sum of weight_s w_s (w_s . v) over the picks from the front so far
        known = self._products[:count, at] * self._weights[:count]
        direction = self.white[at] - known @ self._directions[:count]
        products = np.dot(self.white, direction, out=self._products[count])
        weight = self._alpha / (1.0 + self._alpha * float(self._residuals[at]))
        self._directions[count], self._weights[count] = direction, weight
        self._residuals -= weight * np.square(products)
        np.maximum(self._residuals, 0.0, out=self._residuals)
        self._closed[at] = -np.inf
        self._count += 1
        self.picked.append(int(self.rows[at]))
        self._state.take(int(self.rows[at]), None if self._sketches is None else self._sketches[at].astype(np.float64))
        self._turn()

    def known(self) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals, how wrong they can be, and conflicts, on the device, each of shape (m,), float64."""
        arrays = (self._residuals, self._made_from, self._conflicts)
        residuals, error, conflicts = (torch.from_numpy(array).to(self._device) for array in arrays)
        return residuals, error, conflicts

    def _take_over(self, last: Front | None) -> None:
        """Whiten the rows, but for those that the front before has."""
        self._state.settle()  # which brings the whitened rows of the front before up to date
        new = np.ones(len(self.rows), dtype=bool)
        if last is not None:
            at = np.searchsorted(last.rows, self.rows)
            at[at == len(last.rows)] = 0
            stay = (last.rows[at] == self.rows) & (last.age[at] < _AGE)
            self.white[stay], self.age[stay] = last.white[at[stay]], last.age[at[stay]]
            new = ~stay
        if new.any():
            rows = torch.from_numpy(self.rows[new]).to(self._device)
            sketches = self._state.problem.sketches.gather(rows, torch.float64)
            self.white[new] = self._state.whitener.whiten(sketches).cpu().numpy()

    def _measure(self) -> None:
        """Residuals from the whitened rows, and how wrong they can be."""
        self._residuals = np.einsum("ij,ij->i", self.white, self.white)
        error = _EPSILONS * (1.0 + self.age / 8.0)
        self._made_from = error * (self._norms * np.sqrt(self._residuals) + self._residuals)
        self._margin = 2 * self._vagueness()

    def _turn_white(self, absorbed: Absorbed) -> None:
        """Follow a change of W: the picks from the front are in it now."""
        for left, update in absorbed.steps:
            whitened, coupling = left.cpu().numpy(), update.cpu().numpy()
            self.white -= ((self.white @ whitened.T) @ coupling.T) @ whitened
        self.age += len(absorbed.steps)
        self._count = 0
        self._measure()

    def _turn(self) -> None:
        """Bring the conflicts up to date with the mean of the picks."""
        unit = self._state.direction.unit
        if self._sketches is None:
            return
        if unit is None:
            self._conflicts = np.zeros(len(self.rows))
            return
        along = self._sketches @ unit.astype(self._sketches.dtype)
        self._conflicts = np.clip(-along * self._reciprocals, 0.0, 1.0)

    def _decide(self, near: NDArray[np.int64]) -> int:
        """The best of some rows by the rule of `GreedyState.decide`, which is asked where precision is wanting."""
        residuals = self._residuals[near]
        prices: NDArray[np.float64] | float = 0.0
        if self._penalty:
            rows = torch.from_numpy(self.rows[near]).to(self._device)
            prices = self._penalty * self._state.conflicts(rows).cpu().numpy()
        gains = np.log1p(self._alpha * residuals)
        scores, growth = gains - prices, 1.0 + self._alpha * residuals
        tie = TIE * (gains + prices) + self._rounding(near)
        doubt = self._alpha * self._made_from[near] / growth + self._penalty * self._state.direction.blur
        possible = scores + tie + doubt >= (scores - tie - doubt).max()
        certain = scores + tie - doubt >= (scores - tie + doubt).max()
        if (possible == certain).all():
            return int(near[possible.argmax()])
        unsure = near[possible]
        row, exact = self._state.decide(torch.from_numpy(self.rows[unsure]).to(self._device))
        self._residuals[unsure] = exact.cpu().numpy()
        self._made_from[unsure] = _EPSILONS * (
            self._norms[unsure] * np.sqrt(self._residuals[unsure]) + self._residuals[unsure]
        )
        return int(np.searchsorted(self.rows, row))

    def _rounding(self, near: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rounding that `GreedyState.decide` allows gains, nats."""
        residuals, norms = torch.from_numpy(self._residuals[near]), torch.from_numpy(self._norms[near])
        return gain_error(residuals, norms, self._alpha).numpy()

    def _vagueness(self) -> float:
        """How far apart two scores have to be to be apart, as one number for all rows until the next change of W."""
        gains = np.log1p(self._alpha * self._residuals) + self._penalty
        return float((2.0 * TIE * gains + 2.0 * self._alpha * self._made_from).max(initial=0.0))
