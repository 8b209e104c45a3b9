"""The information of a set as a square root: W with W (I + alpha sum z z^T) W^T = I.

A marginal gain is log(1 + alpha |W z|^2). Taking the norm of a residual vector, rather than the difference of
two large numbers as Cholesky columns or Sherman-Morrison do, is what keeps the gain of a near-duplicate right
when norms differ by many orders: the error of |W z| is about machine epsilon times |z|, squared in the gain.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

#: Picks absorbed at once.
BLOCK = 128

#: A block is cut in two if a pick's 1 + alpha r falls by more than this factor inside it: the gain's error is about as
#: many machine epsilons.
_CANCELLATION = 100.0


Steps: TypeAlias = tuple[tuple[Tensor, Tensor], ...]


class Absorbed(NamedTuple):
    """What some picks gained and changed.

    Attributes:
        residuals: Each pick's |W z|^2 just before it was added, shape (b,), float64.
        directions: Each pick's u, shape (b, p), float64: the residual |W x|^2 of any row x falls by (u . x)^2 for it.
        steps: W became (I - V^T A V) W for each (V, A) in turn, of shapes (c, p) and (c, c).
    """

    residuals: Tensor
    directions: Tensor
    steps: Steps


class Whitener:
    """W after any number of picks, in float64.

    For up to p / 2 picks it is kept as I - Y^T A Y, a product of updates in compact form (Y the whitened picks, A block
    lower triangular), which needs O(kp) numbers and no p x p matrix; from then on as a dense p x p matrix.
    """

    def __init__(self, p: int, alpha: float, capacity: int, device: torch.device) -> None:
        """Start from the empty set, W = I, for up to `capacity` picks of length p."""
        self.alpha = alpha
        self._dense: Tensor | None = None
        # A dense W costs two passes over p x p numbers a pick, the compact form four over picks x p.
        most = max(BLOCK, min(capacity, p // 2))
        self._reflectors = torch.empty(most, p, dtype=torch.float64, device=device)
        self._coupling = torch.zeros(most, most, dtype=torch.float64, device=device)
        self._count = 0

    def whiten(self, rows: Tensor) -> Tensor:
        """W z for each row z; shape (m, p), float64, as the rows."""
        if self._dense is not None:
            return rows @ self._dense.T
        reflectors, coupling = self._compact()
        return rows - ((rows @ reflectors.T) @ coupling.T) @ reflectors

    def absorb(self, rows: Tensor) -> Absorbed:
        """Add picks to the set, in their order.

        For picks Z with V = Z W^T, G = V V^T and I + alpha G = L L^T (Cholesky), the update is
        W <- (I - alpha V^T (L + I)^-T L^-1 V) W (Andrews's block form of Potter's square root), and row i of
        sqrt(alpha) L^-1 V W is the direction u of pick i. Residuals inside the block are differences, |v_i|^2 less what
        the picks before took; a block in which such a difference cancels is cut in two.

        Args:
            rows: The picks, shape (b, p), float64, b <= BLOCK.
        """
        left = self.whiten(rows)
        gram = left @ left.T
        whole = gram.diagonal()
        one = torch.eye(len(rows), dtype=gram.dtype, device=gram.device)
        root, broken = torch.linalg.cholesky_ex(one + self.alpha * gram)
        cancelled = (1 + self.alpha * whole > _CANCELLATION * root.diagonal().square()).any()
        if len(rows) > 1 and bool(cancelled | (broken > 0)):
            first, second = (self.absorb(half) for half in torch.tensor_split(rows, 2))
            residuals, directions = (torch.cat(parts) for parts in zip(first[:2], second[:2], strict=True))
            return Absorbed(residuals, directions, first.steps + second.steps)
        residuals = whole - root.tril(-1).square().sum(dim=1) / self.alpha
        inverse = torch.linalg.solve_triangular(root, one, upper=False)
        update = torch.linalg.solve_triangular((root + one).T, self.alpha * inverse, upper=True)
        directions = inverse @ self._append(left, update) * math.sqrt(self.alpha)
        return Absorbed(residuals, directions, ((left, update),))

    def _append(self, left: Tensor, update: Tensor) -> Tensor:
        """Put I - V^T A V, with V of shape (b, p) and A of shape (b, b), before W; V W with the W from before."""
        reflectors, coupling = self._compact()
        start, stop = self._count, self._count + len(left)
        if self._dense is None and stop > len(self._reflectors):
            self._dense = torch.eye(left.shape[1], dtype=left.dtype, device=left.device)
            self._dense -= reflectors.T @ (coupling @ reflectors)
            self._reflectors, self._coupling = self._reflectors[:0].clone(), self._coupling[:0, :0].clone()
        if self._dense is not None:
            back = left @ self._dense
            self._dense.addmm_(left.T, update @ back, alpha=-1.0)
            return back
        along = (left @ reflectors.T) @ coupling
        self._reflectors[start:stop] = left
        self._coupling[start:stop, :start] = -update @ along
        self._coupling[start:stop, start:stop] = update
        self._count = stop
        return left - along @ reflectors

    def _compact(self) -> tuple[Tensor, Tensor]:
        return self._reflectors[: self._count], self._coupling[: self._count, : self._count]
