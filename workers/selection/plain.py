"""The plain greedy: every row's gain is brought up to date after every pick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workers.selection.conflict import COSINE_EPSILONS, conflict_of
from workers.selection.residuals import Residuals
from workers.selection.state import TIE

if TYPE_CHECKING:
    from workers.selection.state import GreedyState


class PlainProposer:
    """Compares all rows whose score may be the best, after one pass over all rows a pick."""

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

    def best(self) -> tuple[int, float] | None:
        """The row with the largest score and its gain; None when no row has anything to give."""
        penalty = self._state.problem.penalty
        price, gains = penalty * self._conflicts, self._residuals.upper()
        error = TIE * (gains + price) + penalty * self._cosine_error
        upper = torch.where(self._open, gains - price + error, -torch.inf)
        lower = torch.where(self._open, self._residuals.lower() - price - error, -torch.inf)
        rows = torch.nonzero(self._open & (upper >= lower.max())).flatten()
        if rows.numel() == 0:
            return None
        row, residuals = self._state.decide(rows)
        self._residuals.anchor(rows, residuals)
        return row, float(torch.log1p(self._state.problem.alpha * residuals[rows == row]))

    def take(self, row: int) -> None:
        """Bring every row up to date with a pick.

        Args:
            row: The pick.
        """
        state = self._state
        state.take(row)
        self._open[row] = False
        direction = state.directions.latest
        unit = state.direction.unit if state.problem.penalty > 0 else None
        wanted = [direction] if unit is None else [direction, torch.from_numpy(unit).to(direction)]
        products = state.problem.sketches.products(torch.stack(wanted))
        self._residuals.fall(products[:, 0].square())
        if unit is None:
            self._conflicts.zero_()
        else:
            self._conflicts = conflict_of(products[:, 1].double(), state.norms)
