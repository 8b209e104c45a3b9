"""How far a row points away from the mean of the picks: conflict = max(0, -cos(z, mean))."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

#: The sum of the picks counts as zero below this share of the sum of their norms: what is left of picks that
#: cancel (z and -z) is then rounding, and its direction means nothing.
_VANISHED = 1e-12

#: Machine epsilons of the picks' norms that the sum of the picks may be off by.
_SUM_EPSILONS = 16.0

#: A cosine in the bulk precision is taken to be right within this many machine epsilons.
COSINE_EPSILONS = 32.0


class PickDirection:
    """The direction of the mean of the picks, which is that of their sum, kept in float64 on the host.

    Attributes:
        total: Sum of the picks, shape (p,), float64.
        length: Its norm.
        blur: How far rounding of the sum can have moved a cosine with it.
        unit: Its direction, shape (p,), float64; None where the mean counts as zero.
    """

    def __init__(self, p: int) -> None:
        """Start from no picks.

        Args:
            p: Length of a sketch.
        """
        self.total = np.zeros(p)
        self._norms = 0.0
        self.length = 0.0
        self.blur = 0.0
        self.unit: NDArray[np.float64] | None = None

    def add(self, row: NDArray[np.float64]) -> None:
        """Take a pick into the mean.

        Args:
            row: The pick, shape (p,), float64.
        """
        self.total += row
        self._norms += math.sqrt(row @ row)
        self.length = math.sqrt(self.total @ self.total)
        if self.length > _VANISHED * self._norms:
            self.unit = self.total / self.length
            self.blur = _SUM_EPSILONS * np.finfo(np.float64).eps * self._norms / self.length
        else:
            self.unit, self.blur = None, 0.0

    def conflicts(self, rows: Tensor, norms: Tensor) -> Tensor:
        """Conflict of each row with the picks.

        Args:
            rows: Shape (m, p), any float precision.
            norms: Euclidean norms of the rows, shape (m,), float64.

        Returns:
            Shape (m,), float64, in [0, 1]; 0 for every row while the mean is zero, and for zero rows.
        """
        if self.unit is None:
            return torch.zeros_like(norms)
        return conflict_of((rows @ torch.from_numpy(self.unit).to(rows)).double(), norms)


class ConflictRecord:
    """Conflicts of picks with the picks before them, found for many picks at once."""

    def __init__(self, p: int, device: torch.device) -> None:
        """Start from no picks.

        Args:
            p: Length of a sketch.
            device: Torch device of the state.
        """
        self._total = torch.zeros(1, p, dtype=torch.float64, device=device)
        self._norms = torch.zeros(1, dtype=torch.float64, device=device)

    def of_next(self, rows: Tensor, norms: Tensor) -> Tensor:
        """Conflict of each of the next picks with the mean of all before it.

        Args:
            rows: The picks in order, shape (b, p), float64.
            norms: Their Euclidean norms, shape (b,), float64.

        Returns:
            Shape (b,), float64, in [0, 1].
        """
        totals = torch.cat([self._total, rows]).cumsum_(dim=0)
        sums = torch.cat([self._norms, norms]).cumsum_(dim=0)
        self._total, self._norms = totals[-1:].clone(), sums[-1:].clone()
        before = totals[:-1]
        lengths = torch.linalg.vector_norm(before, dim=1)
        along = (rows * before).sum(dim=1) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where(lengths > _VANISHED * sums[:-1], conflict_of(along, norms), 0.0)


def conflict_of(along: Tensor, norms: Tensor) -> Tensor:
    """max(0, -cos) from inner products with the unit mean.

    Args:
        along: Inner products of the rows with the unit mean, shape (m,), float64.
        norms: Euclidean norms of the rows, shape (m,), float64; zero rows give 0.
    """
    cosine = along / norms.clamp_min(torch.finfo(torch.float64).tiny)
    return (-cosine).clamp_(0.0, 1.0)
