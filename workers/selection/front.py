"""The front of the lazy greedy: the few rows that can win soon, copied together and always up to date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workers.selection.conflict import COSINE_EPSILONS, conflict_of

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.residuals import Residuals
    from workers.selection.state import GreedyState


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
    """A dense copy of some rows with their residuals and conflicts after every pick.

    Attributes:
        rows: Row numbers, shape (m,), int64, ascending.
        conflicts: Their conflicts with the mean of the picks, shape (m,), float64.
        outside: Bounds on everything else.
        picked: Those of the rows picked since the front was built.
    """

    def __init__(
        self, state: GreedyState, residuals: Residuals, rows: Tensor, conflicts: Tensor, outside: Outside
    ) -> None:
        """Copy some rows.

        Args:
            state: The shared state of the greedy.
            residuals: Residuals of all rows, up to date for `rows`.
            rows: Row numbers, shape (m,), int64, ascending.
            conflicts: Their conflicts today, shape (m,), float64.
            outside: Bounds on the rows left out.
        """
        problem = state.problem
        self.rows = rows
        self.conflicts = conflicts
        self.outside = outside
        self.picked: list[int] = []
        self._penalty = problem.penalty
        self._sketches = problem.sketches.gather(rows, problem.sketches.dtype)
        self._error = problem.penalty * COSINE_EPSILONS * torch.finfo(problem.sketches.dtype).eps
        self._residuals = residuals.taken(rows)
        self._norms = state.norms[rows]
        self._closed = torch.zeros_like(conflicts)
        self._contenders = rows[:0]

    def contenders(self, fall: float) -> Tensor | None:
        """Rows that may have the largest score of all, ascending; None if a row outside may have it.

        Args:
            fall: How much a conflict may have fallen since the bounds on the outside were computed.
        """
        if self.rows.numel() == len(self.picked):
            return self.rows[:0] if self.outside.gain == -torch.inf else None
        price = self._penalty * self.conflicts
        upper = self._residuals.upper() - price + self._closed
        leader = upper.argmax()
        best = float(self._residuals.lower(leader) - price[leader]) - self._error
        if best <= self.outside.score_now(self._penalty, fall):
            return None
        self._contenders = torch.nonzero(upper >= best - self._error).flatten()
        return self.rows[self._contenders]

    def anchor(self, residuals: Tensor) -> None:
        """Learn the exact residuals of the last contenders."""
        self._residuals.anchor(self._contenders, residuals)

    def advance(self, row: int, direction: Tensor, unit: Tensor | None) -> None:
        """Bring all rows up to date with a pick.

        Args:
            row: The pick, one of the last contenders.
            direction: u, shape (p,), bulk precision.
            unit: Direction of the mean of the picks, shape (p,); None where it is zero or costs nothing.
        """
        self.picked.append(row)
        self._closed[torch.searchsorted(self.rows, row)] = -torch.inf
        if unit is None:
            self._residuals.fall((self._sketches @ direction).square_())
            self.conflicts = torch.zeros_like(self._norms)
            return
        products = torch.stack([direction, unit.to(direction.dtype)]) @ self._sketches.T
        self._residuals.fall(products[0].square_())
        self.conflicts = conflict_of(products[1].double(), self._norms)

    def give_back(self, residuals: Residuals) -> None:
        """Write the residuals back to those of all rows."""
        residuals.put(self.rows, self._residuals)
