"""The gradients by their definition: one sample at a time, real LoRA modules, autograd over the whole model."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from workers.gradients.adapter import part_a, part_b
from workers.gradients.sketch import adapter_signs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from workers.data.samples import Sample
    from workers.gradients.adapter import Adapter


class LoraLinear(nn.Module):
    """y = W x + s B A x; B = 0 unless given."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(base.out_features, down.shape[0]) if up is None else up)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * ((x @ self.down.T) @ self.up.T)


def sample_loss(model: PreTrainedModel, sample: Sample, normalization: str = "sum") -> torch.Tensor:
    ids = torch.from_numpy(sample.input_ids).long().unsqueeze(0)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
    losses = nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    losses = losses[torch.from_numpy(sample.loss_mask[1:].copy())]
    return losses.sum() if normalization == "sum" else losses.mean()


def lora_gradients(
    network: PreTrainedModel,
    samples: Sequence[Sample],
    names: Sequence[str],
    *,
    rank: int,
    seed: int,
    normalization: str = "sum",
) -> dict[str, torch.Tensor]:
    """Gradients of every B, (n, out, r) by layer; asserts that those of every A are zero."""
    model = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    adapters: dict[str, LoraLinear] = {}
    for name in names:
        base = model.get_submodule(name)
        signs = adapter_signs(name, base.in_features, rank, seed)
        adapters[name] = LoraLinear(base, signs.float() / math.sqrt(rank))
        model.set_submodule(name, adapters[name])
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for sample in samples:
        model.zero_grad()
        sample_loss(model, sample, normalization).backward()
        for name, adapter in adapters.items():
            assert adapter.down.grad is not None
            assert not adapter.down.grad.any()
            found[name].append(adapter.up.grad.clone())
    return {name: torch.stack(rows) for name, rows in found.items()}


def with_adapter(network: PreTrainedModel, adapter: Adapter) -> tuple[PreTrainedModel, dict[str, LoraLinear]]:
    """A copy of the model with the adapter as modules of its own."""
    model = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    modules = {
        name: LoraLinear(model.get_submodule(name), low_rank.down.clone(), low_rank.up.clone(), low_rank.scale)
        for name, low_rank in adapter.layers.items()
    }
    for name, module in modules.items():
        model.set_submodule(name, module)
    return model, modules


def adapter_gradients(
    network: PreTrainedModel, samples: Sequence[Sample], adapter: Adapter, normalization: str = "sum"
) -> dict[str, torch.Tensor]:
    """Gradients of every A and B of an adapter, (n, r, in) and (n, out, r) by the gradients' names."""
    model, modules = with_adapter(network, adapter)
    found: dict[str, list[torch.Tensor]] = {}
    for sample in samples:
        model.zero_grad()
        sample_loss(model, sample, normalization).backward()
        for name, module in modules.items():
            for part, parameter in ((part_a(name), module.down), (part_b(name), module.up)):
                assert parameter.grad is not None
                found.setdefault(part, []).append(parameter.grad.clone())
    return {part: torch.stack(rows) for part, rows in found.items()}


def weight_gradients(
    network: PreTrainedModel, samples: Sequence[Sample], names: Sequence[str], normalization: str = "sum"
) -> dict[str, torch.Tensor]:
    """Gradients of the layers' own weights, (n, out, in) by layer."""
    model = copy.deepcopy(network).eval().requires_grad_(requires_grad=True)
    weights = [model.get_submodule(name).weight for name in names]
    rows = [torch.autograd.grad(sample_loss(model, sample, normalization), weights) for sample in samples]
    return {name: torch.stack([row[place] for row in rows]) for place, name in enumerate(names)}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a row, relative to the row's length.

    A row that is 0 but for rounding (a query's gradient where there is one key) counts against the longest row.
    """
    lengths = expected.flatten(1).norm(dim=1)
    difference = (found - expected).flatten(1).norm(dim=1)
    return float((difference / lengths.clamp_min(1e-2 * float(lengths.max()))).max())
