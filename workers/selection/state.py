"""The state that every greedy shares: the set picked so far, and the exact decision between contenders."""

from __future__ import annotations

import math
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

#: Two scores closer than this share of what they are made of are a tie, and the lowest index wins.
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
        #: Euclidean norms of all rows, shape (n,), float64.
        self.norms = problem.squared_norms.sqrt()
        self._rows: list[int] = []
        self._gains: list[float] = []
        self._conflicts: list[float] = []

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
        if rows.numel() == 1:
            return self._look(rows)
        parts = [self._examine(part) for part in torch.split(rows, _CONTENDERS_AT_ONCE)]
        residuals = torch.cat([part[0] for part in parts])
        conflicts = torch.cat([part[1] for part in parts])
        gains, prices = torch.log1p(self.problem.alpha * residuals), self.problem.penalty * conflicts
        scores = gains - prices
        error = TIE * (gains + prices) + gain_error(residuals, self.norms[rows], self.problem.alpha, _EPS64)
        tied = scores + error >= (scores - error).max()
        at = int(torch.nonzero(tied)[0])
        return self._look(rows[at : at + 1])[0], residuals

    def examine(self, row: int) -> Choice:
        """Look at one given row.

        Args:
            row: Its number.
        """
        return self._look(torch.tensor([row], device=self.norms.device))[0]

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
        self.direction.add(choice.sketch, float(self.norms[choice.row]))
        return self.whitener.append(choice.whitened)

    def trace(self) -> Trace:
        """The picks as arrays."""
        return Trace(
            np.array(self._rows, dtype=np.int64),
            np.array(self._gains, dtype=np.float64),
            np.array(self._conflicts, dtype=np.float64),
        )

    def _look(self, row: Tensor) -> tuple[Choice, Tensor]:
        """One row, as a choice, and its residual, shape (1,)."""
        residual, conflict, sketch, whitened = self._examine(row)
        gain = math.log1p(self.problem.alpha * float(residual))
        return Choice(int(row), gain, float(conflict), sketch[0], whitened[0]), residual

    def _examine(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Residuals, conflicts, sketches and whitened sketches of some rows, all in float64."""
        sketches = self.problem.sketches.gather(rows, torch.float64)
        whitened = self.whitener.whiten(sketches)
        residuals = torch.linalg.vector_norm(whitened, dim=1).square_()
        return residuals, self.direction.conflicts(sketches, self.norms[rows]), sketches, whitened


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
