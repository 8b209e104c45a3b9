"""What can be proven about a set after the fact, and before it. Derivations: docs/selection-proofs.md."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from workers.selection.curvature import curvature, curvature_factor
from workers.selection.result import Guarantees

if TYPE_CHECKING:
    from workers.selection.picked import Trace
    from workers.selection.problem import Problem

#: Rounding allowed, in nats for each unit of gain, before an epsilon counts as beyond its bound.
_ROUNDING = 1e-9

#: Picks whose overlaps are computed at once.
_BLOCK = 256


def epsilon_bound_violations(problem: Problem, trace: Trace) -> int:
    """Picks with |epsilon| > -log(1 - u), u = min(v, a / (1 + a)), v = alpha^2 sum (z.y)^2 / (1 + a)."""
    device = problem.sketches.device
    order = torch.from_numpy(trace.indices).to(device)
    base = problem.base_gains()[order]
    scaled = problem.alpha * problem.squared_norms[order]
    overlap = torch.zeros_like(base)  # sum of (z.y)^2 over the picks before
    for start in range(0, len(order), _BLOCK):
        mine = slice(start, start + _BLOCK)
        rows = problem.sketches.gather(order[mine], torch.float64)
        for earlier in torch.split(order[:start], 16 * _BLOCK):
            overlap[mine] += (rows @ problem.sketches.gather(earlier, torch.float64).T).square_().sum(dim=1)
        overlap[mine] += (rows @ rows.T).square_().tril_(-1).sum(dim=1)
    v = problem.alpha * (problem.alpha * overlap) / (1 + scaled)
    # -log(1 - a / (1 + a)) = log(1 + a), written so because 1 - u is lost to rounding for large a.
    bound = torch.where(v < scaled / (1 + scaled), -torch.log1p(-v.clamp_max(1.0)), base)
    epsilon = torch.from_numpy(trace.gains).to(device) - base
    return int((epsilon.abs() > bound + _ROUNDING * (1 + base)).sum())


def guarantees(
    problem: Problem, trace: Trace, *, outside: float, theorem_holds: bool, with_curvature: bool
) -> Guarantees:
    """Everything that is proven about a set.

    Args:
        problem: The rows.
        trace: The picks, in order.
        outside: What rows outside the set can add at most, nats.
        theorem_holds: Whether the set comes from one global greedy, as the a-priori theorem wants.
        with_curvature: Whether to compute the curvature too.
    """
    log_det, k = float(trace.gains.sum()), len(trace.indices)
    optimum = log_det + outside
    rho = -math.expm1(k * math.log1p(-1.0 / k)) if k > 1 else 1.0
    price = float(problem.price.max() - problem.price.min())
    tied = 2.0 * float(problem.widths.max())  # how far below the best score a pick may be
    c = curvature(problem) if with_curvature else None
    return Guarantees(
        certificate=log_det / optimum if optimum > 0 else 1.0,
        optimum_upper_bound=optimum,
        additive_bound=log_det / rho + k * (problem.penalty + price + tied) if theorem_holds and k else None,
        curvature=c,
        curvature_factor=curvature_factor(c) if theorem_holds and price == 0 and c is not None else None,
        epsilon_bound_violations=epsilon_bound_violations(problem, trace),
    )
