"""The directions u in which residuals fall, one a pick, and a quick way to the next one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from workers.selection.whitening import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem

#: The bulk precision serves for u while sqrt(alpha) |z| / sqrt(1 + gain's argument) is at most this: the error of u
#: is that many machine epsilons, to be held against the 32 that `Residuals` allows for.
_TAME = 4.0


class Directions:
    """u of every pick, in the bulk precision, with (I + alpha F_S)^-1 = I - U^T U.

    That inverse is kept as a matrix of the settled picks once these are many, less the rest one by one. It is only
    ever used to find u, whose error the bounds allow for; gains are never computed from it.
    """

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set.

        Args:
            problem: What is being selected from.
        """
        sketches = problem.sketches
        self._alpha = problem.alpha
        self._matrix = torch.empty(problem.budget, sketches.p, dtype=sketches.dtype, device=sketches.device)
        self._count = 0
        self._inverse: Tensor | None = None
        self._narrow: Tensor | None = None
        self._inside = 0

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

    def guess(self, sketch: Tensor) -> Tensor | None:
        """U of a row that is about to be picked, in the bulk precision; None where that is not precise enough.

        u = sqrt(alpha / (1 + alpha z.v)) v with v = (I + alpha F_S)^-1 z.

        Args:
            sketch: z, shape (p,), float64.
        """
        row = sketch.to(self._matrix.dtype)
        rest = self._matrix[self._inside : self._count]
        solved = row if self._narrow is None else self._narrow @ row
        solved = solved - (rest @ row) @ rest
        growth = math.sqrt(1.0 + self._alpha * max(0.0, float(row @ solved)))
        if math.sqrt(self._alpha * float(row @ row)) > _TAME * growth:
            return None
        return solved * (math.sqrt(self._alpha) / growth)

    def append(self, direction: Tensor) -> None:
        """Take in the next pick.

        Args:
            direction: Its u, shape (p,), bulk precision.
        """
        self._matrix[self._count] = direction
        self._count += 1

    def settle(self, first: int, directions: Tensor) -> None:
        """Put exact directions in place of guesses, or after the last.

        Args:
            first: Number of the first pick they belong to.
            directions: Shape (b, p), float64.
        """
        self._count = first + len(directions)
        self._matrix[first : self._count] = directions
        p = self._matrix.shape[1]
        if self._count - self._inside < (BLOCK if self._inverse is not None else max(BLOCK, p // 4)):
            return
        if self._inverse is None:
            self._inverse = torch.eye(p, dtype=torch.float64, device=self._matrix.device)
        rest = self._matrix[self._inside : self._count].double()
        self._inverse -= rest.T @ rest
        self._narrow = self._inverse.to(self._matrix.dtype)
        self._inside = self._count
