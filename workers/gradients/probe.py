"""Trying a model before it is trusted: how it makes logits, and that padding leaves a sample alone."""

from __future__ import annotations

import inspect
import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from workers.data.stopping import Stopped
from workers.gradients.head import OwnHead, PlainHead, WholeHead
from workers.models.architecture import decoder, maybe_output_head, vocabulary_size
from workers.models.errors import ModelError, in_brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn
    from transformers import PreTrainedModel

    from workers.gradients.head import Head

logger = logging.getLogger(__name__)

LOUD = 200.0
"""Largest logit of the trial: beyond every known soft cap (30 and 50), so that a cap shows."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
"""Relative difference of hidden states that rounding may make; a leak from padding is of order 1."""


@contextmanager
def running(model: PreTrainedModel) -> Iterator[None]:
    """Around trying a model: whatever it raises on tokens alone is a model that can't be used, not a fault of ours.

    Raises:
        ModelError: It raised.
    """
    try:
        yield
    except (ModelError, Stopped, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # an architecture raises whatever it lacks
        logger.warning("%s can't be tried", type(model).__name__, exc_info=True)
        raise ModelError(
            f"model.uri: {type(model).__name__} can't be run or differentiated with tokens as its only input "
            f"({in_brief(error)}): choose another proxy model"
        ) from error


def choose_head(model: PreTrainedModel) -> Head:
    """The fastest head that is right for this model.

    Raises:
        ModelError: The model makes no logits for a position, or padding on the right changes a sample (attention that
            is not causal).
    """
    with torch.no_grad(), running(model):
        ids, head = _made_up_tokens(model), maybe_output_head(model)
        logits = model(input_ids=ids, use_cache=False).logits
        if logits.shape[:2] != ids.shape:
            raise ModelError(
                f"model.uri: {type(model).__name__} makes logits of shape {tuple(logits.shape)} out of {ids.shape[1]} "
                "tokens: choose a causal language model"
            )
        _check_mask(model, ids, logits)
        backbone = decoder(model)
        apart = backbone is not model and hasattr(backbone(input_ids=ids, use_cache=False), "last_hidden_state")
        if apart:
            _check_padding(model, ids, lambda tokens: backbone(input_ids=tokens, use_cache=False).last_hidden_state)
            if head is not None and _head_is_plain(model, backbone, head, ids):
                return PlainHead(decoder=backbone, head=head)
        _check_padding(model, ids, lambda tokens: model(input_ids=tokens, use_cache=False).logits)
        if head is not None and _head_is_by_position(model, head, ids):
            return OwnHead(model=model, head=head)
    return WholeHead(model=model)


def _made_up_tokens(model: PreTrainedModel) -> torch.Tensor:
    """One row of 12 distinct tokens, (1, 12)."""
    return (torch.arange(12, device=model.device) * 37 % vocabulary_size(model)).unsqueeze(0)


def _check_padding(model: PreTrainedModel, ids: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Refuse a model in which a padded row of a batch differs from the row alone, or that makes nothing of a row."""
    length = 7
    padded = ids[:, :1].expand_as(ids).clone()
    padded[:, :length] = ids[:, :length]
    together = run(torch.cat([padded, ids, ids.flip(-1)]))[:2, :length]
    alone = run(ids[:, :length])
    size = float(alone.float().norm())
    if size == 0 or not math.isfinite(size):
        raise ModelError(
            f"model.uri: {type(model).__name__} makes hidden states that are {'zero' if size == 0 else 'not finite'} "
            "out of any tokens: its weights are damaged or were never trained, so copy the model again"
        )
    error = (together - alone).float().flatten(1).norm(dim=1).max() / size
    if not float(error) <= TOLERANCE[model.dtype]:
        raise ModelError(
            f"model.uri: padding changes a sample in {type(model).__name__} "
            f"(relative difference {float(error):.1e}): choose a decoder-only model with causal attention"
        )


def _check_mask(model: PreTrainedModel, ids: torch.Tensor, logits: torch.Tensor) -> None:
    """Refuse a model that makes other logits where it is told, as in training, that every token is one."""
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        return
    told = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    error = float((told - logits).float().norm() / logits.float().norm().clamp_min(1e-30))
    if error > TOLERANCE[model.dtype]:
        raise ModelError(
            f"model.uri: {type(model).__name__} makes other logits with an attention mask of ones than without "
            f"(relative difference {error:.1e}): choose another proxy model"
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


def _head_is_by_position(model: PreTrainedModel, head: nn.Linear, ids: torch.Tensor) -> bool:
    """Whether logits at some positions stay what they are when only these positions reach the head."""
    some = torch.tensor([2, 5], device=ids.device)
    whole = model(input_ids=ids, use_cache=False).logits[0, some]
    seen: list[torch.Size] = []

    def only_some(_head: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor] | None:
        seen.append(args[0].shape)
        return (args[0][:, some.to(args[0].device)],) if args[0].shape[:2] == ids.shape else None

    handle = head.register_forward_pre_hook(only_some)
    try:
        picked = model(input_ids=ids, use_cache=False).logits[0]
    except (RuntimeError, ValueError):  # what follows the head needs all positions
        return False
    finally:
        handle.remove()
    tolerance = TOLERANCE[model.dtype]
    return (
        len(seen) == 1
        and picked.shape == whole.shape
        and torch.allclose(picked.float(), whole.float(), tolerance, tolerance)
    )
