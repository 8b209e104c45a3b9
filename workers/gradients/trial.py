"""Trying every linear map of a model before it is trusted: is it called, and does it keep the samples apart?

Three made-up rows run together, forward and backward, then each alone. A layer whose gradients differ between the two
mixes samples; one whose hooks never fire has no gradient that can be seen, and would silently count as 0.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from workers.data.samples import Sample
from workers.gradients.batches import collate, padded_to
from workers.gradients.capture import by_sample, differentiable, first_input
from workers.gradients.probe import choose_head, running
from workers.models.architecture import block_prefixes, frozen, longest_input, vocabulary_size
from workers.models.layers import linear_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from workers.gradients.head import Head
    from workers.models.layers import LinearMap

LENGTHS = (11, 7, 4)
"""Tokens of the made-up rows."""
DIRECTIONS = 4
"""Numbers on each side that a layer's gradient is projected to."""
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.3}
"""Relative difference of projected gradients that rounding may make; a layer that mixes samples is off by order 1."""
NEVER_CALLED = "is never called by the model, which uses its weight directly or not at all"
NO_GRADIENT = "gets no gradient: its output does not reach the loss"
MIXES = "mixes samples: its gradient is not one of a sample alone"
OTHER = "computes something else than its weight times its input"

_tried: WeakKeyDictionary[nn.Module, tuple[torch.dtype, Mapping[str, str]]] = WeakKeyDictionary()


def unusable(model: PreTrainedModel) -> Mapping[str, str]:
    """The linear maps in the model's blocks that no gradients can be taken of, and why, by name.

    Tried once for a model and dtype; experts behind transformers' interface are not among them.

    Raises:
        ModelError: The model can't be run or differentiated.
    """
    known = _tried.get(model)
    if known is None or known[0] != model.dtype:
        known = (model.dtype, _try(frozen(model)))
        _tried[model] = known
    return known[1]


def _try(model: PreTrainedModel) -> dict[str, str]:
    prefixes = block_prefixes(model)
    maps = {
        str(name): one
        for name, module in model.named_modules()
        if str(name).startswith(prefixes) and (one := linear_map(module)) is not None
    }
    head, samples = choose_head(model), _made_up_samples(model)
    with running(model):
        together = _Seen(maps, model.dtype)
        together.run(model, head, samples)
        alone = [_Seen(maps, model.dtype) for _ in samples]
        for seen, sample in zip(alone, samples, strict=True):
            seen.run(model, head, [sample])
    found: dict[str, str] = {}
    for name in maps:
        reason = together.wrong.get(name) or next((seen.wrong[name] for seen in alone if name in seen.wrong), None)
        if reason is None:
            rows = torch.cat([seen.gradients[name].cpu() for seen in alone])
            error = (together.gradients[name].cpu() - rows).norm() / rows.norm().clamp_min(1e-30)
            reason = None if float(error) <= TOLERANCE[model.dtype] or not torch.isfinite(error) else MIXES
        if reason is not None:
            found[name] = reason
    return found


class _Seen:
    """What the layers saw and made in one pass.

    Attributes:
        gradients: Projected gradient of each row by the layers' names, (B, DIRECTIONS, DIRECTIONS).
        wrong: What is wrong with the others.
    """

    def __init__(self, maps: Mapping[str, LinearMap], dtype: torch.dtype) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.wrong: dict[str, str] = dict.fromkeys(maps, NEVER_CALLED)
        self._maps, self._tolerance = maps, TOLERANCE[dtype]

    def run(self, model: PreTrainedModel, head: Head, samples: list[Sample]) -> None:
        step = padded_to(model)
        width = min(-(-LENGTHS[0] // step) * step, longest_input(model.config) or step * LENGTHS[0])
        batch = collate(samples, np.arange(len(samples)), loss_normalization="sum", device=model.device, width=width)
        shape = (batch.input_ids.shape[0], batch.input_ids.shape[1])
        with ExitStack() as stack:
            for name, layer in self._maps.items():
                hook = self._hook(name, layer, shape)
                stack.callback(layer.module.register_forward_hook(hook, with_kwargs=True).remove)
            head.run(batch)

    def _hook(self, name: str, layer: LinearMap, shape: tuple[int, int]) -> Any:  # noqa: ANN401 - torch's type for hooks
        random = torch.Generator().manual_seed(len(name))
        left = torch.randn(layer.out_features, DIRECTIONS, generator=random)
        right = torch.randn(layer.in_features, DIRECTIONS, generator=random)

        def forward(
            _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
        ) -> torch.Tensor:
            if not isinstance(output, torch.Tensor):
                self.wrong[name] = OTHER
                return output
            x = first_input(args, kwargs).detach()
            seen = by_sample(x, shape)
            if seen is None or by_sample(output, shape) is None or seen.shape[-1] != layer.in_features:
                self.wrong[name] = MIXES
                return output
            if not self._is_linear(layer, x, output):
                self.wrong[name] = OTHER
                return output
            if self.wrong.get(name) == NEVER_CALLED:
                self.wrong[name] = NO_GRADIENT
            if not torch.is_grad_enabled():
                return output
            u = seen.float() @ right.to(seen.device)
            begun = differentiable(output)

            def backward(delta: torch.Tensor) -> None:
                made = delta.reshape(shape[0], -1, delta.shape[-1])
                if made.shape[1] != u.shape[1]:
                    self.wrong[name] = MIXES
                    return
                if self.wrong.get(name) == NO_GRADIENT:
                    del self.wrong[name]
                gradient = (made.float() @ left.to(made.device)).transpose(1, 2) @ u
                known = self.gradients.get(name)
                self.gradients[name] = gradient if known is None else known + gradient

            begun.register_hook(backward)  # type: ignore[no-untyped-call]
            return begun

        return forward

    def _is_linear(self, layer: LinearMap, x: torch.Tensor, output: torch.Tensor) -> bool:
        """Whether a subclass of torch.nn.Linear is what its name says; quantised weights are not looked at."""
        module = layer.module
        if type(module) is nn.Linear or not isinstance(module, nn.Linear) or module.weight.is_meta:
            return True
        if module.weight.dtype != x.dtype or module.weight.shape != (layer.out_features, layer.in_features):
            return True
        x, output = x.detach(), output.detach()
        expected = nn.functional.linear(x, module.weight, module.bias)
        size = float(expected.float().norm())
        return expected.shape == output.shape and float((expected - output).float().norm()) <= self._tolerance * size


def _made_up_samples(model: PreTrainedModel) -> list[Sample]:
    """Rows of some lengths, every token of which but the first is a label."""
    vocabulary, longest = vocabulary_size(model), longest_input(model.config) or LENGTHS[0]
    samples = []
    for row, length in enumerate(LENGTHS):
        size = max(2, min(length, longest))
        ids = (np.arange(size) * 29 + 13 * row + 5) % vocabulary
        samples.append(Sample(row=row, input_ids=ids.astype(np.int32), loss_mask=np.arange(size) > 0))
    return samples
