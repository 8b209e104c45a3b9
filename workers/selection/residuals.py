"""What is known about the residual |W z|^2 of every row: an estimate and how wrong it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem

#: An inner product in the bulk precision is taken to be right within this many machine epsilons of |u| |z|.
#: Measured errors are a few epsilons; a contender missed needs an error ten times larger than any seen.
_EPSILONS = 32.0


class Residuals:
    """Estimates r of |W z|^2 for all rows, kept in float64, fed by inner products in the bulk precision.

    An estimate starts from an exact value a (the anchor) and loses (u . z)^2 for each pick. With |u| <= 1 an
    inner product is off by at most e = c eps |z| and (u . z)^2 <= a, so the estimate is off by about
    2 e sqrt(a) + e^2: the `slack`. An exact value found later becomes the new anchor, so near-duplicates of
    huge rows, whose residual is tiny beside |z|^2, soon have a tiny slack too.
    """

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set, where the residual is |z|^2.

        Args:
            problem: What is being selected from.
        """
        self._alpha = problem.alpha
        self._blur = _EPSILONS * torch.finfo(problem.sketches.dtype).eps * problem.squared_norms.sqrt()
        self.estimate = problem.squared_norms.clone()
        self._slack = self._slack_of(self.estimate, self._blur)

    def upper(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Upper bounds on marginal gains, nats."""
        return torch.log1p(self._alpha * (self.estimate[rows] + self._slack[rows]))

    def lower(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Lower bounds on marginal gains, nats; right only for rows that have seen every pick."""
        return torch.log1p(self._alpha * (self.estimate[rows] - self._slack[rows]).clamp_min(0.0))

    def fall(self, drops: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """Lower the estimates of some rows.

        Args:
            drops: Sums of (u . z)^2 over the picks that the rows have not seen, shape (m,).
            rows: Which rows; all by default.
        """
        self.estimate[rows] = (self.estimate[rows] - drops.double()).clamp_min(0.0)

    def anchor(self, rows: Tensor, residuals: Tensor) -> None:
        """Put exact values in place of estimates.

        Args:
            rows: Row numbers, shape (m,).
            residuals: Exact |W z|^2, shape (m,), float64.
        """
        self.estimate[rows] = residuals
        self._slack[rows] = self._slack_of(residuals, self._blur[rows])

    @staticmethod
    def _slack_of(anchor: Tensor, blur: Tensor) -> Tensor:
        return blur * (2 * anchor.sqrt() + blur)
