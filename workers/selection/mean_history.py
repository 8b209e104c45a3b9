"""How far the mean of the picks has turned, and so how far a conflict can have fallen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.conflict import PickDirection


class MeanHistory:
    """The sums of the picks at past moments.

    With s the sum then, t now, and c > 0 the conflict of z then: z.t <= z.s + |z| |t - s|, so the conflict now is
    at least (c |s| - |t - s|) / |t|.
    """

    def __init__(self, direction: PickDirection, error: float) -> None:
        """Start with no moments.

        Args:
            direction: Where the sum of the picks is kept up to date.
            error: How wrong a conflict found in the bulk precision can be.
        """
        self._direction = direction
        self._error = error
        self._totals: list[NDArray[np.float64]] = []
        self._lengths: list[float] = []
        self._count = -1

    @property
    def latest(self) -> int:
        """The number of the latest moment."""
        return len(self._totals) - 1

    def remember(self, count: int) -> None:
        """Make today a moment.

        Args:
            count: Number of picks so far; a moment is stored once.
        """
        if count != self._count:
            self._totals.append(self._direction.total.copy())
            self._lengths.append(self._direction.length)
            self._count = count

    def fall(self) -> float:
        """How much any conflict can have fallen since the latest moment, at most 1.

        From c - (c |s| - |t - s|) / |t| with c in [0, 1].
        """
        now = self._direction
        if now.unit is None:
            return 1.0
        step = now.total - self._totals[-1]
        return min(1.0, (max(0.0, now.length - self._lengths[-1]) + math.sqrt(step @ step)) / now.length)

    def floor(self, conflicts: Tensor, moments: Tensor) -> Tensor:
        """Lower bounds on today's conflicts.

        Args:
            conflicts: Conflicts found at past moments, shape (m,).
            moments: The numbers of those moments, shape (m,), int64.

        Returns:
            Shape (m,), at least 0.
        """
        now = self._direction
        if now.unit is None:
            return torch.zeros_like(conflicts)
        moved = np.linalg.norm(np.stack(self._totals) - now.total, axis=1) / now.length
        shares = np.array(self._lengths) / now.length
        floor: Tensor = (conflicts - self._error) * torch.from_numpy(shares).to(conflicts)[moments]
        return floor.sub_(torch.from_numpy(moved).to(conflicts)[moments]).clamp_min_(0.0)
