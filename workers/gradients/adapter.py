"""Low-rank adapters: y = W x + s B A x on chosen linear layers, as the forward pass and the gradients need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The adapter of one layer.

    Attributes:
        down: A, (r, in).
        up: B, (out, r).
        scale: s, what the product is multiplied with.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """S B A x for each token: (..., in) -> (..., out)."""
        return linear(linear(x.to(self.down.dtype), self.down), self.up).mul_(self.scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> LowRank:
        """The same adapter in the dtype and on the device of a layer."""
        return LowRank(self.down.to(device, dtype), self.up.to(device, dtype), self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The adapters of a model.

    Attributes:
        layers: By the layer's full name; float32.
        revision: Hash of the files that it was read from; None for one that was trained here.
    """

    layers: Mapping[str, LowRank]
    revision: str | None = None


def part_a(layer: str) -> str:
    """Name of the gradient of a layer's A, (r, in)."""
    return f"{layer}.lora_A"


def part_b(layer: str) -> str:
    """Name of the gradient of a layer's B, (out, r)."""
    return f"{layer}.lora_B"
