r"""How the gradient of one linear layer becomes a sketch, for both kinds.

The gradient of a sample's loss with respect to the weight of a linear layer y = W x is a sum over tokens of outer
products, G = sum_t delta_t x_t^T, with delta_t the gradient of the loss at y_t (shape (out,)) and x_t the input
(shape (in,)). Every sketch here is of the form

    z = C vec( sum_t (O delta_t) (I x_t)^T )

| target, kind         | I                     | O                     | C                       |
|----------------------|-----------------------|-----------------------|-------------------------|
| lora, sparse         | A                     | identity              | CountSketch(out r -> p) |
| lora, factorised     | A                     | CountSketch(out -> a) | CountSketch(a r -> p)   |
| linear, sparse       | identity              | identity              | CountSketch(out in -> p)|
| linear, factorised   | CountSketch(in -> b)  | CountSketch(out -> a) | CountSketch(a b -> p)   |

with a, b at most `FACTOR_SIDE`. A is the adapter's down-projection, r x in with entries +-1/sqrt(r), so that
E[A^T A] = 1: at B = 0 the gradient of A is zero and that of B is G A^T, which makes the fresh adapter an unbiased
projection of the full gradient. (PEFT's initialisation has variance 1/(3 in) and a factor alpha/r in front: the
same gradient up to one constant for each layer, but one that weighs layers by 1/in.)

Layers draw their own signs, so the sketch of the whole model is the sum of the layers' sketches: the cross terms
have expectation 0 and the inner products of the concatenated gradients stay unbiased. No matrix of size p x d
exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workers.gradients.config import FACTOR_SIDE
from workers.gradients.countsketch import CountSketch
from workers.gradients.seeds import random_signs

if TYPE_CHECKING:
    from workers.gradients.config import GradientConfig

MATERIALISED_ELEMENTS = 1 << 25
"""Gradient entries that exist at one time; more samples than fit are folded in turns."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerFold:
    """The maps I and O of one layer, and with them its per-sample gradients.

    Attributes:
        adapter: A without its scale, (r, in), entries +-1 in the model's dtype, where they are exact; None: no A.
        scale: What a gradient is multiplied with: 1/sqrt(r), or 1 without an adapter.
        fold_input: The map I where there is no adapter; None: identity.
        fold_output: The map O; None: identity.
    """

    adapter: torch.Tensor | None
    scale: float
    fold_input: CountSketch | None
    fold_output: CountSketch | None

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """I x for each token: (..., in) -> (..., b)."""
        if self.adapter is not None:
            return torch.nn.functional.linear(x, self.adapter)
        return x if self.fold_input is None else self.fold_input(x)

    def outputs(self, delta: torch.Tensor) -> torch.Tensor:
        """O delta for each token: (..., out) -> (..., a)."""
        return delta if self.fold_output is None else self.fold_output(delta)

    def gradients(self, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of d_t u_t^T: u (B, T, b), d (B, T, a) -> (B, a, b) float32."""
        return torch.bmm(d.float().transpose(1, 2), u.float()).mul_(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class LayerSketch:
    """The sketch of one layer: the maps I and O, then C."""

    fold: LayerFold
    flatten: CountSketch
    elements: int

    def __call__(self, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Sketch the per-sample gradients of a batch: u (B, T, b), d (B, T, a) -> (B, p) float32."""
        rows = max(1, MATERIALISED_ELEMENTS // self.elements)
        if u.shape[0] <= rows:
            return self.flatten(self.fold.gradients(u, d).flatten(1))
        parts = [slice(start, start + rows) for start in range(0, u.shape[0], rows)]
        return torch.cat([self.flatten(self.fold.gradients(u[part], d[part]).flatten(1)) for part in parts])


def layer_fold(layer: str, weight: torch.Tensor, config: GradientConfig, *, sketched: bool) -> LayerFold:
    """The maps I and O of a layer.

    Args:
        layer: The layer's full name; with the seed it decides every random choice.
        weight: Its weight, (out, in); gives the sizes, the dtype and the device.
        config: Target, rank, kind and seed.
        sketched: False leaves the gradients whole (but for the adapter), whatever the kind.
    """
    outputs, inputs = weight.shape
    device, seed = weight.device, config.seed
    folds = sketched and config.kind == "factorised"
    adapter = fold_input = fold_output = None
    if config.target == "lora":
        adapter = adapter_signs(layer, inputs, config.rank, seed).to(device, weight.dtype)
    elif folds and inputs > FACTOR_SIDE:
        fold_input = CountSketch.of(inputs, FACTOR_SIDE, seed=seed, role="input", layer=layer, device=device)
    if folds and outputs > FACTOR_SIDE:
        fold_output = CountSketch.of(outputs, FACTOR_SIDE, seed=seed, role="output", layer=layer, device=device)
    scale = 1.0 if adapter is None else 1.0 / math.sqrt(config.rank)
    return LayerFold(adapter=adapter, scale=scale, fold_input=fold_input, fold_output=fold_output)


def layer_sketch(layer: str, weight: torch.Tensor, config: GradientConfig) -> LayerSketch:
    """The sketch of a layer; arguments as in `layer_fold`."""
    fold = layer_fold(layer, weight, config, sketched=True)
    a = weight.shape[0] if fold.fold_output is None else fold.fold_output.outputs
    if fold.adapter is not None:
        b = config.rank
    else:
        b = weight.shape[1] if fold.fold_input is None else fold.fold_input.outputs
    flatten = CountSketch.of(
        a * b, config.sketch_dim, seed=config.seed, role="gradient", layer=layer, device=weight.device
    )
    return LayerSketch(fold=fold, flatten=flatten, elements=a * b)


def adapter_signs(layer: str, inputs: int, rank: int, seed: int) -> torch.Tensor:
    """The adapter's down-projection times sqrt(r): (r, in), int8, entries +-1."""
    signs = random_signs(rank * inputs, seed=seed, role="adapter", layer=layer)
    return torch.from_numpy(signs).view(rank, inputs)
