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
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.problem import Problem
    from workers.selection.whitening import Absorbed

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

    Taking a row in costs nothing at once: its exact gain, its conflict and its direction are found together with those
    of the picks around it, when they are asked for or when there are enough of them.

    Attributes:
        problem: What is being selected from.
        norms: Euclidean norms of all rows, shape (n,), float64.
        direction: Direction of the mean of the picks; followed only where conflicts have a price.
        on_absorbed: Told of every change of W.
    """

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set.

        Args:
            problem: What is being selected from.
        """
        self.problem = problem
        sketches = problem.sketches
        self.norms = problem.squared_norms.sqrt()
        self.direction = PickDirection(sketches.p)
        self._directions = Directions(problem)
        self._record = ConflictRecord(sketches.p, sketches.device)
        self._whitener = Whitener(sketches.p, problem.alpha, problem.budget, sketches.device)
        self.on_absorbed: Callable[[Absorbed], None] | None = None
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
        self.settle()
        return self._whitener

    @property
    def directions(self) -> Directions:
        """U of all picks."""
        self.settle()
        return self._directions

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
        error = TIE * (gains + prices) + gain_error(residuals, self.norms[rows], self.problem.alpha)
        tied = scores + error >= (scores - error).max()
        return int(rows[torch.nonzero(tied)[0]]), residuals

    def upper_gains(self, rows: Tensor) -> Tensor:
        """Upper bounds on marginal gains by float64, shape (m,), nats.

        Args:
            rows: Row numbers, shape (m,), int64.
        """
        residuals = self._examine(rows)[0]
        gains = torch.log1p(self.problem.alpha * residuals)
        return gains + gain_error(residuals, self.norms[rows], self.problem.alpha)

    def gain(self, row: int) -> float:
        """Marginal gain of a row, nats.

        Args:
            row: Its number.
        """
        alone = torch.tensor([row], device=self.norms.device)
        return math.log1p(self.problem.alpha * float(self._examine(alone)[0]))

    def conflicts(self, rows: Tensor) -> Tensor:
        """Conflicts of some rows with the picks, in float64, shape (m,).

        Args:
            rows: Row numbers, shape (m,), int64.
        """
        return self.direction.conflicts(self.problem.sketches.gather(rows, torch.float64), self.norms[rows])

    def take(self, row: int, sketch: NDArray[np.float64] | None = None) -> None:
        """Take a row into the set.

        Args:
            row: Its number.
            sketch: Its sketch, shape (p,), where it is at hand.
        """
        self._rows.append(row)
        if self.problem.penalty > 0:
            self.direction.add(self._sketch(row) if sketch is None else sketch)
        if len(self._rows) - len(self._gains) == BLOCK:
            self.settle()

    def trace(self) -> Trace:
        """The picks as arrays."""
        self.settle()
        return Trace(
            np.array(self._rows, dtype=np.int64),
            np.array(self._gains, dtype=np.float64),
            np.array(self._conflicts, dtype=np.float64),
        )

    def settle(self) -> None:
        """Absorb the picks that wait: exact gains and conflicts for the record, directions for what follows."""
        waiting = self._rows[len(self._gains) :]
        if not waiting:
            return
        at = torch.tensor(waiting, device=self.norms.device)
        rows = self.problem.sketches.gather(at, torch.float64)
        absorbed = self._whitener.absorb(rows)
        self._directions.append(absorbed.directions)
        self._gains += torch.log1p(self.problem.alpha * absorbed.residuals).tolist()
        self._conflicts += self._record.of_next(rows, self.norms[at]).tolist()
        if self.on_absorbed is not None:
            self.on_absorbed(absorbed)

    def _sketch(self, row: int) -> NDArray[np.float64]:
        at = torch.tensor([row], device=self.norms.device)
        found: NDArray[np.float64] = self.problem.sketches.gather(at, torch.float64)[0].cpu().numpy()
        return found

    def _examine(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals and conflicts of some rows against all picks, in float64."""
        whitener = self.whitener
        residuals, conflicts = [], []
        for part in torch.split(rows, _CONTENDERS_AT_ONCE):
            sketches = self.problem.sketches.gather(part, torch.float64)
            residuals.append(torch.linalg.vector_norm(whitener.whiten(sketches), dim=1).square_())
            conflicts.append(self.direction.conflicts(sketches, self.norms[part]))
        return torch.cat(residuals), torch.cat(conflicts)


def gain_error(residuals: Tensor, norms: Tensor, alpha: float) -> Tensor:
    """Rounding error of log(1 + alpha r).

    Args:
        residuals: r, shape (m,).
        norms: |z|, shape (m,).
        alpha: Scale of the objective.

    Returns:
        Shape (m,), nats.
    """
    return alpha * residual_error(residuals, norms) / (1 + alpha * residuals)


def residual_error(residuals: Tensor, norms: Tensor) -> Tensor:
    """Rounding error of r = |v|^2 when v = W z is known to a few float64 epsilons of |z|.

    Args:
        residuals: r, shape (m,).
        norms: |z|, shape (m,).
    """
    blur = 8 * _EPS64 * norms
    return blur * (2 * residuals.sqrt() + blur)
