"""Losses of a batch's labels, differentiable, with logits at the labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from workers.models.architecture import output_head

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from workers.gradients.batches import Batch


def label_losses(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The cross-entropy of each label in nats, (N,), float32.

    The model's own forward pass runs, with whatever it does around its output head; only the head's inputs are cut down
    to the positions of labels, as its outputs would take the most memory of all.

    Args:
        model: The model, with or without an adapter in it.
        batch: The samples.
    """

    def at_labels(_head: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor]:
        return (args[0][batch.label_row, batch.label_position].unsqueeze(0),)

    handle = output_head(model).register_forward_pre_hook(at_labels)
    try:
        logits: torch.Tensor = model(input_ids=batch.input_ids, use_cache=False).logits[0]
    finally:
        handle.remove()
    return nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
