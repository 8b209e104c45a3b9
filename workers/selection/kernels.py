"""The determinantal process on cosines, as a log-det problem on unit rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from workers.selection.problem import Problem

#: Added to the diagonal of the cosine kernel, so that more rows than dimensions can be picked.
DPP_RIDGE = 1e-3


def unit_rows(problem: Problem) -> Problem:
    """The same rows as directions: unit sketches, alpha = 1 / ridge, no penalty.

    For the DPP with kernel C + ridge I, log det(C_SS + ridge I) = k log ridge + log det(I + C_SS / ridge), so the
    greedy MAP of the one is the plain greedy of the other.

    Args:
        problem: The rows.
    """
    lengths = problem.squared_norms.sqrt()
    scale = torch.where(problem.eligible, 1.0 / lengths.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    return replace(
        problem,
        sketches=problem.sketches.scaled(scale),
        squared_norms=problem.eligible.double(),
        alpha=1.0 / DPP_RIDGE,
        penalty=0.0,
    )
