r"""How the gradients at one linear layer become a sketch, for both kinds.

The gradient of a sample's loss with respect to the weight of a linear layer y = W x is a sum over tokens of outer
products, G = sum_t delta_t x_t^T, with delta_t the gradient of the loss at y_t (shape (out,)) and x_t the input
(shape (in,)). Every sketch here is of the form

    z = C D vec( s sum_t (O delta_t) (I x_t)^T )

| gradient of, kind                 | I                    | O                     | C                        |
|-----------------------------------|----------------------|-----------------------|--------------------------|
| fresh adapter's B, sparse         | A                    | identity              | CountSketch(out r -> p)  |
| fresh adapter's B, factorised     | A                    | CountSketch(out -> a) | CountSketch(a r -> p)    |
| adapter's B, sparse or factorised | as above             | as above              | as above                 |
| adapter's A, sparse               | identity             | B^T                   | CountSketch(r in -> p)   |
| adapter's A, factorised           | CountSketch(in -> b) | B^T                   | CountSketch(r b -> p)    |
| linear, sparse                    | identity             | identity              | CountSketch(out in -> p) |
| linear, factorised                | CountSketch(in -> b) | CountSketch(out -> a) | CountSketch(a b -> p)    |

with a, b at most `FACTOR_SIDE`. D is the identity, or, preconditioned, divides entry by entry by the root of its second
moment or makes of a gradient the step that Adam would take; both need whole gradients and therefore the sparse kind. An
adapter computes y = W x + s B A x. A fresh one is not in the forward pass, since its B is 0; its A has entries +-1 and
s = 1/sqrt(r), so that E[s^2 A^T A] = 1: at B = 0 the gradient of A is zero and that of B is s G A^T, which makes the
fresh adapter an unbiased projection of the full gradient. (PEFT's initialisation has variance 1/(3 in) and a factor
alpha/r in front: the same gradient up to one constant for each layer, but one that weighs layers by 1/in.)

Layers draw their own signs, and so do the A and B of one layer, so the sketch of the whole model is the sum of the
layers' sketches: the cross terms have expectation 0 and the inner products of the concatenated gradients stay unbiased.
No matrix of size p x d exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workers.gradients.adapter import part_a, part_b
from workers.gradients.config import FACTOR_SIDE
from workers.gradients.countsketch import CountSketch
from workers.models.memory import GRADIENTS_AT_ONCE
from workers.selection.seeds import random_signs

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.gradients.adapter import LowRank
    from workers.gradients.config import GradientConfig
    from workers.models.layers import LinearMap

    Projection = torch.Tensor | CountSketch | None


@dataclass(frozen=True, slots=True, eq=False)
class LayerFold:
    """The maps I and O of one gradient at a layer, and with them its per-sample values.

    Attributes:
        input_map: The map I: a matrix (b, in) in the model's dtype, a CountSketch, or None: identity.
        output_map: The map O: a matrix (a, out) in the model's dtype, a CountSketch, or None: identity.
        shape: (a, b).
        scale: What a gradient is multiplied with.
    """

    input_map: Projection
    output_map: Projection
    shape: tuple[int, int]
    scale: float

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """I x for each token: (..., in) -> (..., b)."""
        return _mapped(self.input_map, x)

    def outputs(self, delta: torch.Tensor) -> torch.Tensor:
        """O delta for each token: (..., out) -> (..., a)."""
        return _mapped(self.output_map, delta)

    def gradients(self, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of d_t u_t^T: u (B, T, b), d (B, T, a) -> (B, a, b) float32."""
        return torch.bmm(d.float().transpose(1, 2), u.float()).mul_(self.scale)

    def in_turns(self, rows: int) -> list[slice]:
        """Parts of `rows` samples whose gradients may exist together."""
        step = max(1, GRADIENTS_AT_ONCE // (self.shape[0] * self.shape[1]))
        return [slice(start, start + step) for start in range(0, rows, step)]


@dataclass(frozen=True, slots=True, eq=False)
class LayerSketch:
    """The sketch of one gradient at a layer: the maps I and O, then D, then C.

    Attributes:
        fold: I and O.
        flatten: C.
        condition: D, from whole gradients (B, a, b) float32 to others; None: identity.
    """

    fold: LayerFold
    flatten: CountSketch
    condition: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __call__(self, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Sketch the per-sample gradients of a batch: u (B, T, b), d (B, T, a) -> (B, p) float32."""
        parts = [self.flatten(self.gradients(u[part], d[part]).flatten(1)) for part in self.fold.in_turns(u.shape[0])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def gradients(self, u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """What the sketch is a projection of, preconditioned: arguments as above -> (B, a, b) float32."""
        return self.conditioned(self.fold.gradients(u, d))

    def conditioned(self, gradients: torch.Tensor) -> torch.Tensor:
        """D of whole gradients, (B, a, b)."""
        return gradients if self.condition is None else self.condition(gradients)


def layer_folds(
    layer: str, linear: LinearMap, config: GradientConfig, low_rank: LowRank | None = None, *, sketched: bool
) -> dict[str, LayerFold]:
    """The maps I and O of the gradients at a layer, by the gradients' names.

    Args:
        layer: The layer's full name; with the seed it decides every random choice.
        linear: The layer itself; gives the sizes, the dtype and the device.
        config: Target, rank, kind and seed.
        low_rank: The layer's adapter, in its dtype; None for a fresh one and for other targets.
        sketched: False leaves the gradients whole (but for the adapter), whatever the kind.
    """
    outputs, inputs, device = linear.out_features, linear.in_features, linear.device
    folds = sketched and config.kind == "factorised"

    def folded(size: int, role: str) -> CountSketch | None:
        if not folds or size <= FACTOR_SIDE:
            return None
        return CountSketch.of(size, FACTOR_SIDE, seed=config.seed, role=role, layer=layer, device=device)

    def shaped(input_map: Projection, output_map: Projection, scale: float) -> LayerFold:
        return LayerFold(input_map, output_map, (_length(output_map, outputs), _length(input_map, inputs)), scale)

    if config.target != "lora":
        return {layer: shaped(folded(inputs, "input"), folded(outputs, "output"), 1.0)}
    if low_rank is None:
        signs = adapter_signs(layer, inputs, config.rank, config.seed).to(device, linear.dtype)
        return {layer: shaped(signs, folded(outputs, "output"), 1.0 / math.sqrt(config.rank))}
    return {
        part_a(layer): shaped(folded(inputs, "input"), low_rank.up.T.contiguous(), low_rank.scale),
        part_b(layer): shaped(low_rank.down, folded(outputs, "output"), low_rank.scale),
    }


def layer_sketch(
    part: str,
    fold: LayerFold,
    config: GradientConfig,
    device: torch.device,
    condition: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> LayerSketch:
    """The sketch of one gradient at a layer.

    Args:
        part: The gradient's name, as `layer_folds` gives it; with the seed it decides every random choice.
        fold: Its maps I and O.
        config: Length and seed.
        device: Where it is used.
        condition: As in `LayerSketch`.
    """
    entries = fold.shape[0] * fold.shape[1]
    flatten = CountSketch.of(entries, config.sketch_dim, seed=config.seed, role="gradient", layer=part, device=device)
    return LayerSketch(fold, flatten, condition)


def adapter_signs(layer: str, inputs: int, rank: int, seed: int) -> torch.Tensor:
    """The directions of a fresh adapter's A: (r, in), int8, entries +-1."""
    signs = random_signs(rank * inputs, seed=seed, role="adapter", layer=layer)
    return torch.from_numpy(signs).view(rank, inputs)


def _mapped(projection: Projection, values: torch.Tensor) -> torch.Tensor:
    if projection is None:
        return values
    if isinstance(projection, torch.Tensor):
        return torch.nn.functional.linear(values.to(projection.dtype), projection)
    return projection(values)


def _length(projection: Projection, whole: int) -> int:
    """Length of what a map makes of a vector of length `whole`."""
    if projection is None:
        return whole
    return projection.shape[0] if isinstance(projection, torch.Tensor) else projection.outputs
