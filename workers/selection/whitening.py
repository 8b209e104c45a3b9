"""The information of a set as a square root: W with W (I + alpha sum z z^T) W^T = I.

A marginal gain is log(1 + alpha |W z|^2). Taking the norm of a residual vector, rather than the difference of
two large numbers as Cholesky columns or Sherman-Morrison do, is what keeps the gain of a near-duplicate right
when norms differ by many orders: the error of |W z| is about machine epsilon times |z|, squared in the gain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Picks absorbed at once, and reflectors collected before they are multiplied into a dense W.
BLOCK = 64


class Whitener:
    """W after any number of picks, in float64.

    W is kept as B W0: W0 the identity or a dense p x p matrix, and B = I - Y^T A Y a product of up to a few
    hundred rank-one updates in compact form (Y the whitened picks, A lower triangular). While there are fewer
    picks than about p / 2 this needs O(kp) numbers and never a p x p matrix.
    """

    def __init__(self, p: int, alpha: float, capacity: int, device: torch.device) -> None:
        """Start from the empty set, W = I.

        Args:
            p: Length of a sketch.
            alpha: Scale of the objective.
            capacity: Largest number of picks that will be appended.
            device: Torch device of the state.
        """
        self.alpha = alpha
        self._dense: Tensor | None = None
        # A dense W costs two passes over p x p numbers a pick, the compact form four over picks x p.
        block = max(BLOCK, min(capacity, p // 2))
        self._reflectors = torch.empty(block, p, dtype=torch.float64, device=device)
        self._coupling = torch.zeros(block, block, dtype=torch.float64, device=device)
        self._count = 0

    def whiten(self, rows: Tensor) -> Tensor:
        """W z for each row z.

        Args:
            rows: Shape (m, p), float64.

        Returns:
            Shape (m, p), float64.
        """
        found = rows if self._dense is None else rows @ self._dense.T
        if self._count == 0:
            return found
        reflectors, coupling = self._compact()
        return found - ((found @ reflectors.T) @ coupling.T) @ reflectors

    def absorb(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Add picks to the set, in their order.

        The update for a pick z is W <- (I - c w w^T) W with w = W z and c = (1 - 1/sqrt(1 + alpha |w|^2)) / |w|^2
        (Potter's square-root form of a rank-one update), with c written so that nothing cancels.

        Args:
            rows: The picks, shape (b, p), float64, b <= BLOCK.

        Returns:
            Each pick's residual |W z|^2 just before it was added, shape (b,), float64; and its direction u,
            shape (b, p), float64: the residual |W x|^2 of any row x falls by (u . x)^2 for it.
        """
        if self._count + len(rows) > len(self._reflectors):
            self._fold()
        left = self.whiten(rows).clone()  # of the empty set W is the identity, and the rows are the caller's
        residuals = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        directions = torch.empty_like(left)
        for at, whitened in enumerate(left):
            residual = float(whitened @ whitened)
            growth = math.sqrt(1.0 + self.alpha * residual)
            shrink = self.alpha / (growth * (1.0 + growth))
            residuals[at] = residual
            directions[at] = self._reflect(whitened, shrink) * (math.sqrt(self.alpha) / growth)
            after = left[at + 1 :]
            after -= torch.outer(after @ whitened, shrink * whitened)
        return residuals, directions if self._dense is None else directions @ self._dense

    def _reflect(self, whitened: Tensor, shrink: float) -> Tensor:
        """Append I - shrink w w^T to B, and return B^T w from before."""
        reflectors, coupling = self._compact()
        back = coupling.T @ (reflectors @ whitened)
        at = self._count
        self._reflectors[at] = whitened
        self._coupling[at, :at] = -shrink * back
        self._coupling[at, at] = shrink
        self._count += 1
        return whitened - back @ reflectors

    def _compact(self) -> tuple[Tensor, Tensor]:
        return self._reflectors[: self._count], self._coupling[: self._count, : self._count]

    def _fold(self) -> None:
        """Multiply the collected updates into the dense factor."""
        p = self._reflectors.shape[1]
        if self._dense is None:
            self._dense = torch.eye(p, dtype=torch.float64, device=self._reflectors.device)
        reflectors, coupling = self._compact()
        self._dense -= reflectors.T @ (coupling @ (reflectors @ self._dense))
        self._count = 0
        if self._reflectors.shape[0] > BLOCK:
            self._reflectors = self._reflectors[:BLOCK].clone()
            self._coupling = self._coupling[:BLOCK, :BLOCK].clone()
        self._coupling.zero_()
