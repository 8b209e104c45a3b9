"""The selection loop of the published code, written anew from its mathematics: the baseline and a test's oracle."""

from __future__ import annotations

import torch
from torch import Tensor


def published_loop(gradients: Tensor, budget: int, alpha: float, penalty: float, *, kept: bool = False) -> list[int]:
    """Greedy on the diagonal score, one candidate at a time.

    Args:
        gradients: Shape (n, d), float32.
        budget: Rows to pick.
        alpha: Scale.
        penalty: Lambda.
        kept: Keep both sums over the picks, the score's denominator and the mean, from one candidate to the next;
            otherwise each candidate's score is computed as its formula reads.

    Returns:
        Row numbers in the order of picking.
    """
    picked: list[int] = []
    remaining = list(range(gradients.shape[0]))
    for _ in range(budget):
        best, best_score = -1, -float("inf")
        sums = _sums(gradients, picked, alpha)
        for candidate in remaining:
            gradient = gradients[candidate]
            den, mean = sums if kept else _sums(gradients, picked, alpha)
            gain = torch.log1p(alpha * (gradient.square() / den).sum()).item()
            conflict = 0.0
            if picked:
                cosine = torch.nn.functional.cosine_similarity(gradient, mean, dim=0).item()
                conflict = max(0.0, -cosine)
            score = gain - penalty * conflict
            if score > best_score:
                best, best_score = candidate, score
        picked.append(best)
        remaining.remove(best)
    return picked


def _sums(gradients: Tensor, picked: list[int], alpha: float) -> tuple[Tensor, Tensor]:
    """den_j = 1 + alpha * the sum over the picks of g_ij^4, and their mean; both of shape (d,)."""
    picks = gradients[picked]
    return 1 + alpha * picks.pow(4).sum(dim=0), picks.sum(dim=0) / max(1, len(picked))
