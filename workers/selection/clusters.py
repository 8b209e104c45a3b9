"""Clusters of the sketches' directions: how much of the data's variety a subset touches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.problem import Problem

_ROUNDS = 10


def cluster(problem: Problem, count: int, seed: int) -> NDArray[np.int64]:
    """Spherical k-means: rows to the centre of largest cosine, ten rounds from random rows.

    Args:
        problem: The rows.
        count: Number of clusters wanted; at most the number of non-zero rows is used.
        seed: Of the first centres.

    Returns:
        The cluster of each row, shape (n,), int64; -1 for zero and invalid rows.
    """
    sketches = problem.sketches
    rows = torch.nonzero(problem.eligible).flatten()
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(rows.numel(), generator=generator)[:count].sort().values
    centres = _unit(sketches.gather(rows[first.to(rows.device)], sketches.dtype))
    labels = torch.full((sketches.n,), -1, dtype=torch.int64, device=sketches.device)
    if rows.numel() == 0:
        return labels.cpu().numpy()
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centres)
        for where, tile in sketches.tiles():
            kept = problem.eligible[where]
            unit = _unit(tile[kept])
            found = (unit @ centres.T).argmax(dim=1)
            sums.index_add_(0, found, unit)
            labels[where][kept] = found
        empty = sums.square().sum(dim=1) == 0
        centres = torch.where(empty.unsqueeze(1), centres, _unit(sums))
    return labels.cpu().numpy()


def coverage(labels: NDArray[np.int64], indices: NDArray[np.int64]) -> float:
    """Share of the clusters that have at least one pick, in [0, 1].

    Args:
        labels: Cluster of each row, shape (n,), int64, -1 for none.
        indices: The picks, shape (k,), int64.
    """
    every = np.unique(labels[labels >= 0])
    return float(np.isin(every, labels[indices]).mean()) if every.size else 0.0


def _unit(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(torch.finfo(rows.dtype).tiny)
