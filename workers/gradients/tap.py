"""A tap: what is done at one linear map while a batch passes through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.gradients.adapter import LowRank
    from workers.gradients.sketch import LayerFold
    from workers.models.layers import LinearMap

Receive = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Called with a gradient's name, u = I x (B, T, b) and d = O delta (B, T, a)."""


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """What is done at one linear map.

    Attributes:
        layer: The map.
        folds: The maps I and O of every gradient that is taken there, by the gradient's name; may be none.
        low_rank: The adapter that is part of the forward pass, in the layer's dtype; None where there is none, or
            where its B is 0.
    """

    layer: LinearMap
    folds: Mapping[str, LayerFold]
    low_rank: LowRank | None = None
