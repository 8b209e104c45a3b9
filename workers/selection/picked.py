"""The set picked so far: exact gains and conflicts of its picks, W for the gains to come, and the mean of the picks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from workers.selection.rounding import EPS64, EXACT, gain_error, residual_error
from workers.selection.whitening import BLOCK, Whitener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.problem import Problem
    from workers.selection.whitening import Absorbed

#: The sum of the picks counts as zero below this share of the sum of their norms: what is left of picks that
#: cancel (z and -z) is then rounding, and its direction means nothing.
_VANISHED = 1e-12

#: Rows whitened at once.
_ROWS = 4096


class Trace(NamedTuple):
    """Picks in their order: indices (int64), gains (nats) and conflicts (in [0, 1]), each of shape (k,)."""

    indices: NDArray[np.int64]
    gains: NDArray[np.float64]
    conflicts: NDArray[np.float64]


class Mean:
    """The direction of the mean of the picks, which is that of their sum, in float64 on the host.

    Attributes:
        total: Sum of the picks, shape (p,).
        unit: Its direction, shape (p,); None where the sum counts as zero.
        error: Error of a cosine with `unit` that comes from rounding of the sum.
    """

    def __init__(self, p: int) -> None:
        self.total = np.zeros(p)
        self.unit: NDArray[np.float64] | None = None
        self.error = 0.0
        self._length = self._norms = 0.0

    def add(self, sketch: NDArray[np.float64]) -> float:
        """Take a pick, shape (p,), into the mean; its conflict with the mean before."""
        norm = math.sqrt(sketch @ sketch)
        along = 0.0 if self.unit is None or norm == 0.0 else float(sketch @ self.unit) / norm
        self.total += sketch
        self._norms += norm
        self._length = math.sqrt(self.total @ self.total)
        if self._length > _VANISHED * self._norms:
            self.unit, self.error = self.total / self._length, 16.0 * EPS64 * self._norms / self._length
        else:
            self.unit, self.error = None, 0.0
        return min(1.0, max(0.0, -along))

    def fall_since(self, total: NDArray[np.float64]) -> float:
        """How much any conflict can have fallen since the sum of the picks was `total`, at most 1.

        With s the sum then and t now, z.t <= z.s + |z||t - s|: a conflict c is now at least (c|s| - |t - s|) / |t|, and
        c less that is at most max(0, |t| - |s|) / |t| + |t - s| / |t| for c in [0, 1].
        """
        if self.unit is None:
            return 1.0
        step, longer = self.total - total, max(0.0, self._length - math.sqrt(total @ total))
        return min(1.0, (longer + math.sqrt(step @ step)) / self._length)


class Picked:
    """The picks so far, in order.

    Attributes:
        rows, mean, whitener: Their row numbers, their mean, and W of those that were absorbed.
        first_gain: Gain of the first that the greedy chose, nats; None before it.
    """

    def __init__(self, problem: Problem) -> None:
        sketches = problem.sketches
        self.rows: list[int] = []
        self.mean = Mean(sketches.p)
        self.whitener = Whitener(sketches.p, problem.alpha, problem.budget, sketches.device)
        self.first_gain: float | None = None
        self._problem = problem
        self._gains: list[float] = []
        self._conflicts: list[float] = []

    def take(self, row: int, sketch: NDArray[np.float64]) -> None:
        """Take a row, with its sketch of shape (p,), into the set and its mean; its gain waits for `absorb`."""
        self.rows.append(row)
        self._conflicts.append(self.mean.add(sketch))

    def absorb(self) -> Absorbed:
        """Take the waiting picks, at most `BLOCK`, into W; what they changed."""
        absorbed = self.whitener.absorb(self._sketches(self.rows[len(self._gains) :]))
        self._gains += torch.log1p(self._problem.alpha * absorbed.residuals).tolist()
        return absorbed

    def add(self, rows: Sequence[int]) -> Tensor:
        """Take any rows in their order and absorb them; their directions u, shape (m, p), float64."""
        directions = [torch.empty(0, self._problem.sketches.p, dtype=torch.float64, device=self._problem.norms.device)]
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            for row, sketch in zip(block, self._sketches(block).cpu().numpy(), strict=True):
                self.take(row, sketch)
            directions.append(self.absorb().directions)
        return torch.cat(directions)

    def upper_gains(self, rows: Tensor) -> Tensor:
        """Marginal gains of rows, shape (m,), nats, at the upper end of their rounding in float64."""
        alpha, norms = self._problem.alpha, self._problem.norms[rows]
        parts = [
            self.whitener.whiten(self._problem.sketches.gather(part, torch.float64))
            for part in torch.split(rows, _ROWS)
        ]
        residuals = torch.cat([torch.linalg.vector_norm(part, dim=1) for part in parts]).square_()
        error = gain_error(residuals, residual_error(residuals, norms, EXACT), alpha)
        return torch.log1p(alpha * residuals) + error

    @property
    def log_det(self) -> float:
        """F of the absorbed picks, nats."""
        return float(np.sum(self._gains))

    def trace(self) -> Trace:
        """The picks as arrays."""
        return Trace(np.array(self.rows, dtype=np.int64), np.array(self._gains), np.array(self._conflicts))

    def _sketches(self, rows: Sequence[int]) -> Tensor:
        at = torch.tensor(rows, dtype=torch.int64, device=self._problem.norms.device)
        return self._problem.sketches.gather(at, torch.float64)
