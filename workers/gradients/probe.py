"""Trying a model before it is trusted: how it makes logits, and that padding leaves a sample alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from workers.gradients.head import OwnHead, PlainHead
from workers.models.architecture import decoder, output_head, vocabulary_size
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from workers.gradients.head import Head

LOUD = 200.0
"""Largest logit of the trial: beyond every known soft cap (30 and 50), so that a cap shows."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
"""Relative difference of hidden states that rounding may make; a leak from padding is of order 1."""


def choose_head(model: PreTrainedModel) -> Head:
    """The fastest head that is right for this model.

    Raises:
        ModelError: The model's logits at a position are not a function of the hidden state there, or padding on
            the right changes a sample (attention that is not causal).
    """
    backbone, head = decoder(model), output_head(model)
    ids = _made_up_tokens(model)
    with torch.no_grad():
        _check_padding(model, backbone, ids)
        if _head_is_plain(model, backbone, head, ids):
            return PlainHead(decoder=backbone, head=head)
        _check_own_head(model, head, ids)
    return OwnHead(model=model, head=head)


def _made_up_tokens(model: PreTrainedModel) -> torch.Tensor:
    """One row of 12 distinct tokens, (1, 12)."""
    return (torch.arange(12, device=model.device) * 37 % vocabulary_size(model)).unsqueeze(0)


def _check_padding(model: PreTrainedModel, backbone: nn.Module, ids: torch.Tensor) -> None:
    """Refuse a model in which a padded row of a batch differs from the row alone, or that makes nothing of a row."""
    length = 7
    padded = ids[:, :1].expand_as(ids).clone()
    padded[:, :length] = ids[:, :length]
    both = torch.cat([padded, ids.flip(-1)])
    together = backbone(input_ids=both, use_cache=False).last_hidden_state[:1, :length]
    alone = backbone(input_ids=ids[:, :length], use_cache=False).last_hidden_state
    size = float(alone.float().norm())
    if size == 0 or not math.isfinite(size):
        raise ModelError(
            f"model.uri: {type(model).__name__} makes hidden states that are {'zero' if size == 0 else 'not finite'} "
            "out of any tokens: its weights are damaged or were never trained, so copy the model again"
        )
    error = (together - alone).float().norm() / size
    if not float(error) <= TOLERANCE[model.dtype]:
        raise ModelError(
            f"model.uri: padding changes a sample in {type(model).__name__} "
            f"(relative difference {float(error):.1e}): choose a decoder-only model with causal attention"
        )


def _loud_logits(model: PreTrainedModel, head: nn.Linear, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The head's input as the model made it, its output with that input scaled up, and the logits made of it."""
    seen: dict[str, torch.Tensor] = {}

    def scale_up(_head: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor]:
        seen["input"] = args[0]
        largest = torch.nn.functional.linear(args[0], head.weight, head.bias).abs().max()
        return (args[0] * (LOUD / largest),)

    def keep(_head: nn.Module, _args: tuple[Any, ...], output: torch.Tensor) -> None:
        seen["output"] = output.clone()

    handles = [head.register_forward_pre_hook(scale_up), head.register_forward_hook(keep)]
    try:
        seen["logits"] = model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _head_is_plain(model: PreTrainedModel, backbone: nn.Module, head: nn.Linear, ids: torch.Tensor) -> bool:
    """Whether the model is decoder, then head, and nothing else, to the bit."""
    seen = _loud_logits(model, head, ids)
    hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
    if "input" not in seen or seen["input"].shape != hidden.shape:
        return False
    return torch.equal(seen["input"], hidden) and torch.equal(seen["output"].float(), seen["logits"].float())


def _check_own_head(model: PreTrainedModel, head: nn.Linear, ids: torch.Tensor) -> None:
    """Refuse a model whose logits at some positions change when only these positions reach the head."""
    some = torch.tensor([2, 5], device=ids.device)
    whole = model(input_ids=ids, use_cache=False).logits[0, some]
    handle = head.register_forward_pre_hook(lambda _head, args: (args[0][:, some],))
    try:
        picked = model(input_ids=ids, use_cache=False).logits[0]
    finally:
        handle.remove()
    tolerance = TOLERANCE[model.dtype]
    if picked.shape != whole.shape or not torch.allclose(picked.float(), whole.float(), tolerance, tolerance):
        raise ModelError(
            f"model.uri: {type(model).__name__} makes the logits of a position out of more than its hidden state: "
            "choose another proxy model"
        )
