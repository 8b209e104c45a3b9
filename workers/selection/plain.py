"""The plain greedy: every row's gain is brought up to date after every pick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workers.selection.conflict import COSINE_EPSILONS, conflict_of
from workers.selection.residuals import Residuals

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.state import GreedyState


class PlainProposer:
    """Proposes every row whose score may be the best, after one pass over all rows a pick."""

    def __init__(self, state: GreedyState) -> None:
        """Start from the state's set, which must be empty.

        Args:
            state: The shared state of the greedy.
        """
        self._state = state
        self._residuals = Residuals.at_start(state.problem)
        self._open = state.problem.eligible.clone()
        self._conflicts = torch.zeros_like(state.norms)
        self._cosine_error = COSINE_EPSILONS * torch.finfo(state.problem.sketches.dtype).eps

    def contenders(self) -> Tensor:
        """Rows that may have the largest score, ascending; empty when no row has anything to give."""
        price = self._state.problem.penalty * self._conflicts
        error = self._state.problem.penalty * self._cosine_error
        upper = torch.where(self._open, self._residuals.upper() - price + error, -torch.inf)
        lower = torch.where(self._open, self._residuals.lower() - price - error, -torch.inf)
        return torch.nonzero(self._open & (upper >= lower.max())).flatten()

    def examined(self, rows: Tensor, residuals: Tensor) -> None:
        """Learn the exact residuals of rows that were decided between."""
        self._residuals.anchor(rows, residuals)

    def picked(self, row: int, direction: Tensor) -> None:
        """Bring every row up to date with a pick.

        Args:
            row: The pick.
            direction: u, shape (p,), bulk precision.
        """
        self._open[row] = False
        sketches = self._state.problem.sketches
        unit = self._state.direction.unit if self._state.problem.penalty > 0 else None
        wanted = [direction] if unit is None else [direction, unit.to(direction.dtype)]
        products = sketches.products(torch.stack(wanted))
        self._residuals.fall(products[:, 0].square())
        if unit is None:
            self._conflicts.zero_()
        else:
            self._conflicts = conflict_of(products[:, 1].double(), self._state.norms)
