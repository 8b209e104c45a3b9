"""The selection loop of the published code, written anew from its mathematics: the baseline and a test's oracle."""

from __future__ import annotations

import torch
from torch import Tensor


def published_loop(gradients: Tensor, budget: int, alpha: float, penalty: float) -> list[int]:
    """Greedy on the diagonal score, one candidate at a time as published.

    Args:
        gradients: Shape (n, d), float32.
        budget: Rows to pick.
        alpha: Scale.
        penalty: Lambda.

    Returns:
        Row numbers in the order of picking.
    """
    picked: list[int] = []
    remaining = list(range(gradients.shape[0]))
    # Kept up to date from step to step: the kindest reading of the published code, which is no faster.
    den = torch.ones_like(gradients[0])
    total = torch.zeros_like(gradients[0])
    for _ in range(budget):
        best, best_score = -1, -float("inf")
        mean = total / max(1, len(picked))
        for candidate in remaining:
            gradient = gradients[candidate]
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
        den = den + alpha * gradients[best].pow(4)
        total = total + gradients[best]
    return picked
