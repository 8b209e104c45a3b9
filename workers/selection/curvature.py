"""The curvature of the objective over all rows, for a greedy without a penalty.

Derivation: docs/selection-proofs.md.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from workers.selection.rounding import EXACT, gain_error, residual_error
from workers.selection.whitening import BLOCK, Whitener

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem

#: Rows whitened at once.
_ROWS = 4096

#: A leverage beyond which 1 - h loses digits.
_HALF = 0.5


def curvature(problem: Problem) -> float:
    """Total curvature c = 1 - min_x gain(x | all others) / base gain, over the non-zero rows; in [0, 1].

    It is never below the true one by rounding, so that its factor stays proven. Costs about n + p log p picks, and
    needs p x p matrices, about log p of them.

    Args:
        problem: The rows.
    """
    rows = torch.nonzero(problem.eligible).flatten()
    if rows.numel() == 0:
        return 0.0
    base, last = problem.base_gains()[rows], _last_gains(problem, rows)
    return float(1.0 - (last / base).clamp(0.0, 1.0).min())


def curvature_factor(c: float) -> float:
    """(1 - e^-c) / c, and 1 at c = 0.

    Args:
        c: Total curvature, in [0, 1].
    """
    return -math.expm1(-c) / c if c > 0 else 1.0


def _last_gains(problem: Problem, rows: Tensor) -> Tensor:
    """Lower bounds, off by rounding alone, on the gain of each of some rows when all others are in the set.

    With leverage h = alpha |W z|^2 under all rows the gain is -log(1 - h), which is lost to rounding as h nears 1. All
    leverages sum to at most p, so that is so for fewer than 2p rows, whose gains are computed without their own row.

    Args:
        problem: The rows.
        rows: All that are not zero, shape (m,), int64.
    """
    alpha, norms = problem.alpha, problem.norms
    whitener = Whitener(problem.sketches.p, alpha, rows.numel(), problem.sketches.device)
    _absorb(problem, whitener, rows)
    residuals = _whitened(problem, whitener, rows)
    leverages = alpha * (residuals - residual_error(residuals, norms[rows], EXACT))
    gains = -torch.log1p(-leverages.clamp(0.0, _HALF))
    alone = torch.nonzero(leverages > _HALF).flatten()
    if alone.numel():
        whitener = Whitener(problem.sketches.p, alpha, rows.numel(), problem.sketches.device)
        _absorb(problem, whitener, rows[leverages <= _HALF])
        residuals = _without_themselves(problem, whitener, rows[alone])
        errors = residual_error(residuals, norms[rows[alone]], EXACT)
        gains[alone] = torch.log1p(alpha * residuals) - gain_error(residuals, errors, alpha)
    return gains


def _without_themselves(problem: Problem, whitener: Whitener, rows: Tensor) -> Tensor:
    """|W z|^2 of each of some rows when the others of them are in the set too, shape (m,), float64.

    Each half is taken with the other half in the set, and so on down to single rows.

    Args:
        problem: The rows.
        whitener: Of a set without any of them.
        rows: Shape (m,), int64, m >= 1.
    """
    if len(rows) == 1:
        return _whitened(problem, whitener, rows)
    halves = torch.tensor_split(rows, 2)
    found = []
    for mine, others in (halves, halves[::-1]):
        with_others = deepcopy(whitener)
        _absorb(problem, with_others, others)
        found.append(_without_themselves(problem, with_others, mine))
    return torch.cat(found)


def _absorb(problem: Problem, whitener: Whitener, rows: Tensor) -> None:
    for part in torch.split(rows, BLOCK):
        if part.numel():
            whitener.absorb(problem.sketches.gather(part, torch.float64))


def _whitened(problem: Problem, whitener: Whitener, rows: Tensor) -> Tensor:
    """|W z|^2 of some rows, shape (m,), float64."""
    parts = [whitener.whiten(problem.sketches.gather(part, torch.float64)) for part in torch.split(rows, _ROWS)]
    return torch.cat([torch.linalg.vector_norm(part, dim=1).square_() for part in parts])
