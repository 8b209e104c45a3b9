"""The stochastic greedy: each step looks at a fresh random sample of the rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.state import GreedyState


class StochasticProposer:
    """Compares (n/k) log(1/epsilon) random rows a step, in float64.

    For lambda = 0 the expected F(S) is at least (1 - 1/e - epsilon) F(S*) (Mirzasoleiman et al., "Lazier Than
    Lazy Greedy", AAAI 2015); with the penalty the same holds against F(S*) - k lambda where that is not negative
    (docs/selection.md).
    """

    def __init__(self, state: GreedyState, epsilon: float, seed: int) -> None:
        """Start from the state's set, which must be empty.

        Args:
            state: The shared state of the greedy.
            epsilon: What is lost in expectation, in (0, 1).
            seed: Of the samples.
        """
        rows = torch.nonzero(state.problem.eligible).flatten()
        self._state = state
        self._open = rows
        self._sample = max(1, math.ceil(rows.numel() / state.problem.budget * math.log(1 / epsilon)))
        self._generator = torch.Generator().manual_seed(seed)

    def best(self) -> tuple[int, float] | None:
        """The row with the largest score of this step's sample and its gain; None when no row is left."""
        rows = self._drawn()
        if rows.numel() == 0:
            return None
        row, residuals = self._state.decide(rows)
        return row, float(torch.log1p(self._state.problem.alpha * residuals[rows == row]))

    def take(self, row: int) -> None:
        """Take the pick out of later samples.

        Args:
            row: The pick.
        """
        self._state.take(row)
        self._open = self._open[self._open != row]

    def _drawn(self) -> Tensor:
        left = self._open.numel()
        if self._sample >= left:
            return self._open
        # Drawing with replacement and dropping repeats would shrink the sample; a partial shuffle does not.
        chosen = torch.randperm(left, generator=self._generator)[: self._sample]
        return self._open[chosen.sort().values.to(self._open.device)]
