"""The state that every greedy shares: the set picked so far, and the exact decision between contenders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.conflict import ConflictRecord, PickDirection
from workers.selection.directions import Directions
from workers.selection.whitening import BLOCK, Whitener

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
    """The picks so far. Whatever precision finds contenders, they are compared here, in float64.

    A pick that had no rival needs its exact gain only for the record. Such picks wait, and are absorbed many at a
    time; until then the directions of the bulk precision stand in for theirs.

    Attributes:
        problem: What is being selected from.
        norms: Euclidean norms of all rows, shape (n,), float64.
        direction: Direction of the mean of the picks; followed only where conflicts have a price.
        directions: u of every pick.
    """

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set.

        Args:
            problem: What is being selected from.
        """
        self.problem = problem
        sketches = problem.sketches
        self.norms = problem.squared_norms.sqrt()
        self.direction = PickDirection(sketches.p, sketches.device)
        self.directions = Directions(problem)
        self._record = ConflictRecord(sketches.p, sketches.device)
        self._whitener = Whitener(sketches.p, problem.alpha, problem.budget, sketches.device)
        self._waiting: list[Tensor] = []
        self._rows: list[int] = []
        self._gains: list[float] = []
        self._conflicts: list[float] = []

    @property
    def count(self) -> int:
        """Number of picks."""
        return len(self._rows)

    @property
    def whitener(self) -> Whitener:
        """W of all picks."""
        self._settle()
        return self._whitener

    def decide(self, rows: Tensor) -> tuple[int, Tensor]:
        """Find the row with the largest score among a few.

        A score is known to within its rounding error (that of a float64 gain, see `Whitener`, and `TIE`);
        rows whose intervals reach the best one are tied with it, and the lowest index among them is chosen.

        Args:
            rows: Row numbers, shape (m,), int64, ascending, m >= 1.

        Returns:
            The row, and the residuals |W z|^2 of all given rows, shape (m,), float64.
        """
        residuals, conflicts = self._examine(rows)
        gains, prices = torch.log1p(self.problem.alpha * residuals), self.problem.penalty * conflicts
        scores = gains - prices
        error = TIE * (gains + prices) + gain_error(residuals, self.norms[rows], self.problem.alpha, _EPS64)
        tied = scores + error >= (scores - error).max()
        return int(rows[torch.nonzero(tied)[0]]), residuals

    def upper_gains(self, rows: Tensor) -> Tensor:
        """Upper bounds on marginal gains by float64, shape (m,), nats.

        Args:
            rows: Row numbers, shape (m,), int64.
        """
        residuals = self._examine(rows)[0]
        gains = torch.log1p(self.problem.alpha * residuals)
        return gains + gain_error(residuals, self.norms[rows], self.problem.alpha, _EPS64)

    def gain(self, row: int) -> float:
        """Marginal gain of a row, nats.

        Args:
            row: Its number.
        """
        return math.log1p(self.problem.alpha * float(self._examine(self._alone(row))[0]))

    def add(self, row: int) -> Tensor:
        """Take a row into the set.

        Args:
            row: Its number.

        Returns:
            u, shape (p,), bulk precision: the residual of any row x falls by (u . x)^2.
        """
        sketch = self._take(row)
        narrow = self.directions.guess(sketch)
        if narrow is None:
            self._settle()
            return self.directions.latest
        self.directions.append(narrow)
        if len(self._waiting) == BLOCK:
            self._settle()
        return narrow

    def follow(self, row: int) -> None:
        """Take a row into the set without asking what that does to the others.

        Args:
            row: Its number.
        """
        self._take(row)
        if len(self._waiting) == BLOCK:
            self._settle()

    def trace(self) -> Trace:
        """The picks as arrays."""
        self._settle()
        return Trace(
            np.array(self._rows, dtype=np.int64),
            np.array(self._gains, dtype=np.float64),
            np.array(self._conflicts, dtype=np.float64),
        )

    def _take(self, row: int) -> Tensor:
        """Record a pick, leave its gain and conflict for later, and return its sketch, shape (p,), float64."""
        at = self._alone(row)
        sketch = self.problem.sketches.gather(at, torch.float64)[0]
        if self.problem.penalty > 0:
            self.direction.add(sketch, float(self.norms[at]))
        self._rows.append(row)
        self._waiting.append(sketch)
        return sketch

    def _settle(self) -> None:
        """Absorb the waiting picks: exact gains and conflicts for the record, exact directions for what follows."""
        if not self._waiting:
            return
        first = self.count - len(self._waiting)
        rows = torch.stack(self._waiting)
        self._waiting.clear()
        residuals, directions = self._whitener.absorb(rows)
        self._gains += torch.log1p(self.problem.alpha * residuals).tolist()
        norms = self.norms[torch.tensor(self._rows[first:], device=self.norms.device)]
        self._conflicts += self._record.of_next(rows, norms).tolist()
        self.directions.settle(first, directions)

    def _alone(self, row: int) -> Tensor:
        return torch.tensor([row], device=self.norms.device)

    def _examine(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals and conflicts of some rows against all picks, in float64."""
        whitener = self.whitener
        residuals, conflicts = [], []
        for part in torch.split(rows, _CONTENDERS_AT_ONCE):
            sketches = self.problem.sketches.gather(part, torch.float64)
            residuals.append(torch.linalg.vector_norm(whitener.whiten(sketches), dim=1).square_())
            conflicts.append(self.direction.conflicts(sketches, self.norms[part]))
        return torch.cat(residuals), torch.cat(conflicts)


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
