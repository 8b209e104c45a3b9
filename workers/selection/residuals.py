"""What is known about the residual |W z|^2 of every row: an estimate and how wrong it can be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem

#: Inner products of a row with many u in the bulk precision, together, are taken to be right within this many machine
#: epsilons of |z|, or sqrt(p) of them where that is more. The largest error seen in wild data was a quarter of that.
_EPSILONS = 32.0


class Residuals:
    """Estimates r of |W z|^2 for some rows, kept in float64, fed by inner products in the bulk precision.

    An estimate starts from an exact value a (the anchor) and loses (u . z)^2 for each pick. These sum to at most a,
    so with errors of the inner products that are together, as a vector, no longer than e = c eps |z|, the estimate is
    off by at most 2 e sqrt(a) + e^2: the `slack`. An exact value found later becomes the new anchor, so near-duplicates
    of huge rows, whose residual is tiny beside |z|^2, soon have a tiny slack too.
    """

    def __init__(self, alpha: float, estimate: Tensor, slack: Tensor, blur: Tensor) -> None:
        """Take what is known; `Residuals.at_start` for the empty set.

        Args:
            alpha: Scale of the objective.
            estimate: r, shape (m,), float64.
            slack: How wrong each may be, shape (m,), float64.
            blur: e of each row, shape (m,), float64.
        """
        self._alpha = alpha
        self._estimate = estimate
        self._slack = slack
        self._blur = blur

    @classmethod
    def at_start(cls, problem: Problem) -> Residuals:
        """Of all rows at the empty set, where the residual is |z|^2.

        Args:
            problem: What is being selected from.
        """
        epsilons = max(_EPSILONS, math.sqrt(problem.sketches.p)) * torch.finfo(problem.sketches.dtype).eps
        blur = epsilons * problem.squared_norms.sqrt()
        return cls(problem.alpha, problem.squared_norms.clone(), _slack(problem.squared_norms, blur), blur)

    def upper(self, rows: Tensor | None = None) -> Tensor:
        """Upper bounds on marginal gains, nats, of the given rows or all."""
        estimate, slack = self._of(rows)
        return torch.add(estimate, slack).mul_(self._alpha).log1p_()

    def lower(self, rows: Tensor | None = None) -> Tensor:
        """Lower bounds on marginal gains, nats; right only for rows that have seen every pick."""
        estimate, slack = self._of(rows)
        return torch.sub(estimate, slack).clamp_min_(0.0).mul_(self._alpha).log1p_()

    def fall(self, drops: Tensor, rows: Tensor | slice | None = None) -> None:
        """Lower the estimates of some rows, or all.

        Args:
            drops: Sums of (u . z)^2 over the picks that the rows have not seen, shape (m,).
            rows: Which rows.
        """
        if rows is None:
            self._estimate.sub_(drops).clamp_min_(0.0)
        else:
            self._estimate[rows] = (self._estimate[rows] - drops).clamp_min_(0.0)

    def anchor(self, rows: Tensor | slice, residuals: Tensor, error: Tensor | None = None) -> None:
        """Put values of float64 in place of estimates.

        Args:
            rows: Row numbers, shape (m,).
            residuals: |W z|^2, shape (m,), float64.
            error: How wrong they may be, shape (m,), float64, where that is more than rounding.
        """
        self._estimate[rows] = residuals
        slack = _slack(residuals, self._blur[rows])
        self._slack[rows] = slack if error is None else slack + error

    def _of(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self._estimate, self._slack) if rows is None else (self._estimate[rows], self._slack[rows])


def _slack(anchor: Tensor, blur: Tensor) -> Tensor:
    return blur * (2 * anchor.sqrt() + blur)
