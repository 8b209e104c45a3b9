"""What can be proven about a set after the fact, and before it. Derivations: docs/selection.md."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from workers.selection.result import Guarantees
from workers.selection.state import gain_error, residual_error
from workers.selection.whitening import BLOCK, Whitener

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.problem import Problem
    from workers.selection.progress import Watch
    from workers.selection.state import GreedyState, Trace

#: Rounding allowed, in nats for each unit of gain, before an epsilon counts as beyond its bound.
_ROUNDING = 1e-9

#: Picks whose overlaps are computed at once, and picks before them that they are held against at once.
_BLOCK, _EARLIER = 256, 4096

#: A leverage beyond which 1 - h loses digits.
_HALF = 0.5


def outside_gain_sum(state: GreedyState, watch: Watch) -> float:
    """Sum of the |S| largest marginal gains outside S, nats, from one pass over all rows in float64.

    Args:
        state: The set S.
        watch: The caller's callbacks.
    """
    problem, whitener = state.problem, state.whitener
    sketches = problem.sketches
    residuals = torch.empty(sketches.n, dtype=torch.float64, device=sketches.device)
    for where, tile in sketches.tiles(torch.float64):
        residuals[where] = torch.linalg.vector_norm(whitener.whiten(tile), dim=1).square_()
        watch.step("certifying", where.stop, sketches.n)
    gains = torch.where(problem.eligible, torch.log1p(problem.alpha * residuals), 0.0)
    gains[state.trace().indices] = 0.0
    return float(gains.topk(min(state.count, sketches.n)).values.sum())


def additive_bound(log_det: float, count: int, penalty: float) -> float:
    """Upper bound on F(S*) by the a-priori theorem: F(S) >= rho (F(S*) - k lambda), rho = 1 - (1 - 1/k)^k.

    Args:
        log_det: F(S), nats.
        count: k >= 1.
        penalty: Lambda, nats.
    """
    rho = -math.expm1(count * math.log1p(-1.0 / count)) if count > 1 else 1.0
    return log_det / rho + count * penalty


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


def epsilon_bound_violations(problem: Problem, trace: Trace) -> int:
    """Picks with |epsilon| > -log(1 - u), u = min(v, a / (1 + a)), v = alpha^2 sum (z.y)^2 / (1 + a).

    Args:
        problem: The rows.
        trace: The picks, in order.
    """
    device = problem.sketches.device
    order = torch.from_numpy(trace.indices).to(device)
    base = problem.base_gains()[order]
    scaled = problem.alpha * problem.squared_norms[order]
    overlap = _overlaps(problem, order)
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
        outside: Sum of the largest gains outside the set, nats.
        theorem_holds: Whether the set comes from one global greedy, as the a-priori theorem wants.
        with_curvature: Whether to compute the curvature too.
    """
    log_det = float(trace.gains.sum())
    count = len(trace.indices)
    optimum = log_det + outside
    c = curvature(problem) if with_curvature else None
    return Guarantees(
        certificate=log_det / optimum if optimum > 0 else 1.0,
        optimum_upper_bound=optimum,
        additive_bound=additive_bound(log_det, count, problem.penalty) if theorem_holds and count else None,
        curvature=c,
        curvature_factor=curvature_factor(c) if theorem_holds and c is not None else None,
        epsilon_bound_violations=epsilon_bound_violations(problem, trace),
    )


def _last_gains(problem: Problem, rows: Tensor) -> Tensor:
    """Lower bounds, off by rounding alone, on the gain of each of some rows when all others are in the set.

    With leverage h = alpha |W z|^2 under all rows the gain is -log(1 - h), which is lost to rounding as h nears 1. All
    leverages sum to at most p, so that is so for fewer than 2p rows, whose gains are computed without their own row.

    Args:
        problem: The rows.
        rows: All that are not zero, shape (m,), int64.
    """
    alpha, norms = problem.alpha, problem.squared_norms.sqrt()
    whitener = Whitener(problem.sketches.p, alpha, rows.numel(), problem.sketches.device)
    _absorb(problem, whitener, rows)
    residuals = _whitened(problem, whitener, rows)
    leverages = alpha * (residuals - residual_error(residuals, norms[rows]))
    gains = -torch.log1p(-leverages.clamp(0.0, _HALF))
    alone = torch.nonzero(leverages > _HALF).flatten()
    if alone.numel():
        whitener = Whitener(problem.sketches.p, alpha, rows.numel(), problem.sketches.device)
        _absorb(problem, whitener, rows[leverages <= _HALF])
        residuals = _without_themselves(problem, whitener, rows[alone])
        gains[alone] = torch.log1p(alpha * residuals) - gain_error(residuals, norms[rows[alone]], alpha)
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
    parts = [whitener.whiten(problem.sketches.gather(part, torch.float64)) for part in torch.split(rows, _EARLIER)]
    return torch.cat([torch.linalg.vector_norm(part, dim=1).square_() for part in parts])


def _overlaps(problem: Problem, order: Tensor) -> Tensor:
    """For each pick, the sum of squared inner products with all picks before it, shape (k,), float64."""
    found = torch.zeros(order.numel(), dtype=torch.float64, device=order.device)
    for start in range(0, order.numel(), _BLOCK):
        mine = slice(start, min(start + _BLOCK, order.numel()))
        rows = problem.sketches.gather(order[mine], torch.float64)
        for before in range(0, start, _EARLIER):
            earlier = problem.sketches.gather(order[before : min(before + _EARLIER, start)], torch.float64)
            found[mine] += (rows @ earlier.T).square_().sum(dim=1)
        found[mine] += (rows @ rows.T).square_().tril_(-1).sum(dim=1)
    return found
