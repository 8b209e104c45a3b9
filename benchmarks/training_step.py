"""A plain batched LoRA training step, as the yardstick of what per-sample sketches cost. On any device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from workers.gradients.config import GradientConfig
from workers.gradients.sketch import adapter_signs
from workers.gradients.targets import target_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from workers.data.samples import Sample

RANK = 8
TRAINING_ROWS = 8
IGNORED = -100


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable adapter beside it, as training has it."""

    def __init__(self, base: nn.Linear, name: str) -> None:
        super().__init__()
        self.base = base
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Parameter(adapter_signs(name, base.in_features, RANK, 0).to(**like) / math.sqrt(RANK))
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK, **like))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.down.T) @ self.up.T


@dataclass(frozen=True)
class Adapted:
    """Puts adapters into a model for the time of a training step and takes them out again."""

    model: PreTrainedModel
    adapters: dict[str, LoraLinear]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Adapted:
        layers = target_layers(model, GradientConfig(rank=RANK))
        return cls(model, {name: LoraLinear(layer.module, name) for name, layer in layers.items()})

    def __enter__(self) -> None:
        for name, adapter in self.adapters.items():
            self.model.set_submodule(name, adapter)

    def __exit__(self, *_: object) -> None:
        for name, adapter in self.adapters.items():
            self.model.set_submodule(name, adapter.base)
            adapter.up.grad = adapter.down.grad = None


def training_batch(samples: Sequence[Sample], device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """What the usual collator makes: padded to the longest row, with an attention mask and labels."""
    width = max(sample.tokens for sample in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for line, sample in enumerate(samples):
        tokens = torch.from_numpy(sample.input_ids).long()
        ids[line, : sample.tokens] = tokens
        mask[line, : sample.tokens] = 1
        labels[line, : sample.tokens] = torch.where(torch.from_numpy(sample.loss_mask), tokens, IGNORED)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: values.to(device) for name, values in batch.items()}


def training_steps(model: PreTrainedModel, samples: Sequence[Sample], rows: int = TRAINING_ROWS) -> None:
    """Forward over all logits and backward, `rows` samples a step, no optimizer."""
    for start in range(0, len(samples), rows):
        batch = training_batch(samples[start : start + rows], model.device)
        model(**batch, use_cache=False).loss.backward()
