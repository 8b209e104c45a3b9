"""The stochastic greedy: each step looks at a fresh random sample of the rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.state import GreedyState


class StochasticProposer:
    """Proposes (n/k) log(1/epsilon) random rows a step, whose gains are then computed in float64.

    For lambda = 0 the expected F(S) is at least (1 - 1/e - epsilon) F(S*) (Mirzasoleiman et al., "Lazier Than
    Lazy Greedy", AAAI 2015); with the penalty the same holds against F(S*) - k lambda (docs/selection.md).
    """

    def __init__(self, state: GreedyState, epsilon: float, seed: int) -> None:
        """Start from the state's set, which must be empty.

        Args:
            state: The shared state of the greedy.
            epsilon: What is lost in expectation, in (0, 1).
            seed: Of the samples.
        """
        rows = torch.nonzero(state.problem.eligible).flatten()
        self._open = rows
        self._sample = max(1, math.ceil(rows.numel() / state.problem.budget * math.log(1 / epsilon)))
        self._generator = torch.Generator().manual_seed(seed)

    def contenders(self) -> Tensor:
        """This step's sample, ascending; empty when no row is left."""
        left = self._open.numel()
        if self._sample >= left:
            return self._open
        # Drawing with replacement and dropping repeats would shrink the sample; a partial shuffle does not.
        chosen = torch.randperm(left, generator=self._generator)[: self._sample]
        return self._open[chosen.sort().values.to(self._open.device)]

    def examined(self, rows: Tensor, residuals: Tensor) -> None:
        """Nothing is remembered between steps."""

    def picked(self, row: int, direction: Tensor) -> None:  # noqa: ARG002 - the protocol's signature
        """Take the pick out of later samples.

        Args:
            row: The pick.
            direction: Not needed: the next sample is evaluated afresh.
        """
        self._open = self._open[self._open != row]
