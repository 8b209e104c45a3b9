"""The step that Adam would take for one sample: what LESS compares training rows by.

m' = b1 m + (1 - b1) g and v' = b2 v + (1 - b2) g^2; the direction is m' / (1 - b1^t) / (sqrt(v' / (1 - b2^t)) + e),
with m and v the moments after t - 1 steps of a warm-up: equation 3 of the paper. Its code leaves the bias corrections
out, which are one factor for all rows, and has e inside the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class AdamDirection:
    """Adam's state at one gradient after some steps.

    Attributes:
        first: m, not bias corrected, (a, b) float32.
        second: v, likewise.
        steps: How many there were.
    """

    first: torch.Tensor
    second: torch.Tensor
    steps: int

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        """The directions for the gradients of some samples, (B, a, b)."""
        t = self.steps + 1
        first = self.first * BETAS[0] + (1 - BETAS[0]) * gradients
        second = self.second * BETAS[1] + (1 - BETAS[1]) * gradients.square()
        return first / (1 - BETAS[0] ** t) / ((second / (1 - BETAS[1] ** t)).sqrt() + EPSILON)
