"""The directions u in which residuals fall, one a pick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem


class Directions:
    """u of every pick, in the bulk precision: the residual of any row x falls by (u . x)^2 for the pick."""

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set.

        Args:
            problem: What is being selected from.
        """
        sketches = problem.sketches
        self._matrix = torch.empty(problem.budget, sketches.p, dtype=sketches.dtype, device=sketches.device)
        self._count = 0

    @property
    def latest(self) -> Tensor:
        """U of the last pick, shape (p,)."""
        return self._matrix[self._count - 1]

    def since(self, first: int) -> Tensor:
        """U of the picks from one on, shape (count - first, p).

        Args:
            first: Number of the pick, from 0.
        """
        return self._matrix[first : self._count]

    def append(self, directions: Tensor) -> None:
        """Take in those of the next picks.

        Args:
            directions: Shape (b, p), float64.
        """
        self._matrix[self._count : self._count + len(directions)] = directions
        self._count += len(directions)
