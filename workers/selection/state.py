"""The state that every greedy shares: the set picked so far, and the exact decision between contenders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.conflict import PickDirection
from workers.selection.whitening import Whitener

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.problem import Problem

_EPS64 = torch.finfo(torch.float64).eps

#: Two scores closer than this, in nats, are a tie and the lowest index wins.
TIE = 1e-12

#: Rows evaluated in float64 at once.
_CONTENDERS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    """A row examined in float64 against the current set.

    Attributes:
        row: Its number.
        gain: Its marginal gain, nats.
        conflict: Its conflict, in [0, 1].
        sketch: z, shape (p,), float64.
        whitened: W z, shape (p,), float64.
    """

    row: int
    gain: float
    conflict: float
    sketch: Tensor
    whitened: Tensor


@dataclass(frozen=True, slots=True)
class Trace:
    """A sequence of picks with its exact numbers.

    Attributes:
        indices: Shape (k,), int64.
        gains: Marginal gains, shape (k,), nats.
        conflicts: Shape (k,), in [0, 1].
    """

    indices: NDArray[np.int64]
    gains: NDArray[np.float64]
    conflicts: NDArray[np.float64]


class GreedyState:
    """The picks so far. Whatever precision finds contenders, they are compared here, in float64."""

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set.

        Args:
            problem: What is being selected from.
        """
        self.problem = problem
        sketches = problem.sketches
        self.whitener = Whitener(sketches.p, problem.alpha, problem.budget, sketches.device)
        self.direction = PickDirection(sketches.p, sketches.device)
        self._norms = problem.squared_norms.sqrt()
        self._rows: list[int] = []
        self._gains: list[float] = []
        self._conflicts: list[float] = []

    @property
    def norms(self) -> Tensor:
        """Euclidean norms of all rows, shape (n,), float64."""
        return self._norms

    @property
    def count(self) -> int:
        """Number of picks."""
        return len(self._rows)

    @property
    def first_gain(self) -> float:
        """Gain of the first pick, nats."""
        return self._gains[0]

    def decide(self, rows: Tensor) -> tuple[Choice, Tensor]:
        """Find the row with the largest score among a few.

        A score is known to within its rounding error (that of a float64 gain, see `Whitener`, and `TIE`);
        rows whose intervals reach the best one are tied with it, and the lowest index among them is chosen.

        Args:
            rows: Row numbers, shape (m,), int64, ascending, m >= 1.

        Returns:
            The choice, and the residuals |W z|^2 of all given rows, shape (m,), float64.
        """
        parts = [self._examine(part) for part in torch.split(rows, _CONTENDERS_AT_ONCE)]
        residuals = torch.cat([residual for residual, _ in parts])
        conflicts = torch.cat([conflict for _, conflict in parts])
        gains = torch.log1p(self.problem.alpha * residuals)
        scores = gains - self.problem.penalty * conflicts
        error = TIE + gain_error(residuals, self._norms[rows], self.problem.alpha, _EPS64)
        tied = scores + error >= (scores - error).max()
        at = int(torch.nonzero(tied)[0])
        return self._choice(rows[at : at + 1], float(gains[at]), float(conflicts[at])), residuals

    def examine(self, row: int) -> Choice:
        """Look at one given row.

        Args:
            row: Its number.
        """
        return self.decide(torch.tensor([row], device=self._norms.device))[0]

    def add(self, choice: Choice) -> Tensor:
        """Take a row into the set.

        Args:
            choice: The row, examined against the current set.

        Returns:
            u, shape (p,), float64: the residual of any row x falls by (u . x)^2.
        """
        self._rows.append(choice.row)
        self._gains.append(choice.gain)
        self._conflicts.append(choice.conflict)
        self.direction.add(choice.sketch, float(self._norms[choice.row]))
        return self.whitener.append(choice.whitened)

    def trace(self) -> Trace:
        """The picks as arrays."""
        return Trace(
            np.array(self._rows, dtype=np.int64),
            np.array(self._gains, dtype=np.float64),
            np.array(self._conflicts, dtype=np.float64),
        )

    def _examine(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        sketches = self.problem.sketches.gather(rows, torch.float64)
        residuals = torch.linalg.vector_norm(self.whitener.whiten(sketches), dim=1).square_()
        return residuals, self.direction.conflicts(sketches, self._norms[rows])

    def _choice(self, row: Tensor, gain: float, conflict: float) -> Choice:
        sketch = self.problem.sketches.gather(row, torch.float64)
        return Choice(int(row), gain, conflict, sketch[0], self.whitener.whiten(sketch)[0])


def gain_error(residuals: Tensor, norms: Tensor, alpha: float, eps: float) -> Tensor:
    """Rounding error of log(1 + alpha r) when r = |v|^2 and v is known to a few eps |z|.

    Args:
        residuals: r, shape (m,).
        norms: |z|, shape (m,).
        alpha: Scale of the objective.
        eps: Machine epsilon of the precision that v was computed in.

    Returns:
        Shape (m,), nats.
    """
    blur = 8 * eps * norms
    return alpha * blur * (2 * residuals.sqrt() + blur) / (1 + alpha * residuals)
