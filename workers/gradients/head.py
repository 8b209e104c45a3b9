"""From the last hidden states to the losses, and the start of the backward pass: logits only where a label is.

The output head of a small model costs as much as several blocks, so it runs on the label positions alone. What
a model does around its head differs (soft-capped or scaled logits, scaled hidden states), so a head is chosen by
trying the model, never by its name: `PlainHead` where head and model agree to the bit, else `OwnHead`, which
runs the model's own forward pass with the label positions alone at its head, and where that gives other logits
`WholeHead`, which leaves the forward pass alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from workers.models.errors import ModelError
from workers.models.memory import LOGITS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from workers.gradients.batches import Batch

    HeadTap = Callable[[torch.Tensor, torch.Tensor], None]


class Head(Protocol):
    """Losses of a batch's labels and the backward pass from there."""

    def run(self, batch: Batch, tap: HeadTap | None = None) -> torch.Tensor:
        """Run the model forward, and backward as far as something there asks for gradients.

        Args:
            batch: The samples.
            tap: Called for some labels at a time with the head's inputs there (C, H) and the gradient of
                the weighted loss at the head's outputs (C, V), until every label was there once, in order.

        Returns:
            The cross-entropy of each label in nats, (N,), float32, weights not applied.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PlainHead:
    """For models whose logits are exactly the linear head of the decoder's last hidden state.

    The gradient of cross-entropy is known, softmax minus one-hot, so it is computed with the loss, some labels at
    a time, and the logits of a batch never exist together.
    """

    decoder: nn.Module
    head: nn.Linear

    def run(self, batch: Batch, tap: HeadTap | None = None) -> torch.Tensor:
        """As in `Head`."""
        hidden = self.decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        below = hidden.requires_grad
        at_labels = hidden.detach()[batch.label_row, batch.label_position]
        losses = torch.empty(at_labels.shape[0], dtype=torch.float32, device=hidden.device)
        grad = torch.zeros_like(hidden) if below else None
        count, step = at_labels.shape[0], max(1, LOGITS_AT_ONCE // self.head.out_features)
        for start in range(0, count, step):
            part = slice(start, start + step)
            x = at_labels[part]
            losses[part], delta = cross_entropy(self.head(x), batch.targets[part], batch.weights[part])
            if tap is not None:
                tap(x, delta)
            if grad is not None:
                grad[batch.label_row[part], batch.label_position[part]] = delta.to(x.dtype) @ self.head.weight
        if grad is not None:
            torch.autograd.backward(hidden, grad)
        return losses


@dataclass(frozen=True, slots=True, eq=False)
class OwnHead:
    """For models that do more around their head: their own forward pass, the head fed with labels alone."""

    model: PreTrainedModel
    head: nn.Linear

    def run(self, batch: Batch, tap: HeadTap | None = None) -> torch.Tensor:
        """As in `Head`."""

        def only_labels(_head: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor]:
            return (args[0][batch.label_row, batch.label_position].unsqueeze(0),)

        def catch(_head: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if tap is not None:
                if not output.requires_grad:
                    output.requires_grad_(True)
                x = args[0].detach()[0]
                output.register_hook(lambda delta: tap(x, delta[0]))  # type: ignore[no-untyped-call]

        handles = [self.head.register_forward_pre_hook(only_labels), self.head.register_forward_hook(catch)]
        try:
            logits = self.model(input_ids=batch.input_ids, use_cache=False).logits[0]
            losses = nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
            if losses.requires_grad:
                torch.autograd.backward((losses * batch.weights).sum())
        finally:
            for handle in handles:
                handle.remove()
        return losses.detach()


@dataclass(frozen=True, slots=True, eq=False)
class WholeHead:
    """For models whose logits are made otherwise: their own forward pass, at all positions."""

    model: PreTrainedModel

    def run(self, batch: Batch, tap: HeadTap | None = None) -> torch.Tensor:
        """As in `Head`.

        Raises:
            ModelError: The head's own gradient is asked for, which can't be seen here.
        """
        if tap is not None:
            raise ModelError(
                f"gradients.target: {type(self.model).__name__} makes its logits by more than one linear layer, so "
                "last_layer has no gradient there: use lora or linear"
            )
        every: torch.Tensor = self.model(input_ids=batch.input_ids, use_cache=False).logits
        logits = every[batch.label_row.to(every.device), batch.label_position.to(every.device)]
        losses = nn.functional.cross_entropy(logits.float(), batch.targets.to(every.device), reduction="none")
        losses = losses.to(batch.weights.device)
        torch.autograd.backward((losses * batch.weights).sum())
        return losses.detach()


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (C,) in nats and the gradient of the weighted loss at the logits (C, V), in float32.

    Args:
        logits: (C, V).
        targets: (C,).
        weights: (C,).
    """
    log_probabilities = logits.float().log_softmax(-1)
    at_target = targets.unsqueeze(-1)
    losses = -log_probabilities.gather(-1, at_target)
    delta = log_probabilities.exp_()
    delta.scatter_add_(-1, at_target, delta.new_full((1, 1), -1.0).expand_as(at_target))
    return losses.squeeze(-1), delta.mul_(weights.unsqueeze(-1))
