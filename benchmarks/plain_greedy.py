"""The plain vectorised greedy on the same objective: rank-one updates, one pass over all rows a pick."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_greedy(sketches: Tensor, budget: int, penalty: float, *, fused: bool = True) -> list[int]:
    """Penalised log-det greedy with alpha = 1 / median squared norm, in float32 throughout.

    A pick costs a product of all rows with one vector for the gains and with one for the conflicts, and a
    Sherman-Morrison update of a p x p inverse.

    Args:
        sketches: Shape (n, p), float32.
        budget: Rows to pick.
        penalty: Lambda.
        fused: One pass over the rows for both products, in the layout that BLAS runs fastest; otherwise two
            matrix-vector products, as one would write it first.

    Returns:
        Row numbers in the order of picking.
    """
    residuals = sketches.square().sum(dim=1)
    norms = residuals.sqrt()
    alpha = 1.0 / float(residuals.median())
    inverse = torch.eye(sketches.shape[1])
    along = torch.zeros_like(norms)
    total = torch.zeros(sketches.shape[1])
    closed = torch.zeros_like(norms)
    picks: list[int] = []
    for _ in range(budget):
        scores = torch.log1p(alpha * residuals) + closed
        if picks:
            scores -= penalty * (-along / (norms * torch.linalg.vector_norm(total))).clamp_(0, 1)
        pick = int(scores.argmax())
        picks.append(pick)
        closed[pick] = -torch.inf
        row = sketches[pick]
        solved = inverse @ row
        direction = solved * (alpha / (1 + alpha * (row @ solved))).sqrt()
        inverse -= torch.outer(direction, direction)
        total += row
        if fused:
            products = torch.nn.functional.linear(sketches, torch.stack([direction, row]))
            residuals -= products[:, 0].square()
            along += products[:, 1]
        else:
            residuals -= torch.mv(sketches, direction).square_()
            along += torch.mv(sketches, row)
    return picks
