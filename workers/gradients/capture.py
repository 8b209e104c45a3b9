"""Hooks that catch, in one batched pass, what the per-sample gradients of linear layers are made of."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

    from workers.gradients.adapter import LowRank
    from workers.gradients.sketch import LayerFold

    Receive = Callable[[str, torch.Tensor, torch.Tensor], None]
    Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor | None]

BATCHED = 3
"""Axes of a layer's input that keeps samples apart: (B, T, in)."""


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """What is done at one linear layer.

    Attributes:
        layer: The layer.
        folds: The maps I and O of every gradient that is taken there, by the gradient's name; may be none.
        low_rank: The adapter that is part of the forward pass, in the layer's dtype; None where there is none, or
            where its B is 0.
    """

    layer: nn.Linear
    folds: Mapping[str, LayerFold]
    low_rank: LowRank | None = None


@contextmanager
def captured(taps: Mapping[str, Tap], receive: Receive, poll: Callable[[], None]) -> Iterator[None]:
    """Inside, every backward pass gives `receive` each layer's factors as soon as they are known.

    The forward pass keeps only the folded input of a layer (for the B of an adapter r numbers a token); the output's
    gradient is folded and used the moment that the backward pass makes it. Layers run backwards, so at any time
    the gradients of one layer exist.

    Args:
        taps: By the layers' names.
        receive: Called with a gradient's name, u = I x (B, T, b) and d = O delta (B, T, a).
        poll: Called at every layer, forward and backward; what it raises ends the pass.
    """
    handles = [tap.layer.register_forward_hook(_forward_hook(name, tap, receive, poll)) for name, tap in taps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward_hook(name: str, tap: Tap, receive: Receive, poll: Callable[[], None]) -> Hook:
    """The hook of one layer: add the adapter and fold the input now, the output's gradient later."""

    def forward(_layer: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        poll()
        x: torch.Tensor = args[0]
        if x.dim() != BATCHED:
            raise ModelError(
                f"gradients.layers: {name} sees an input of shape {tuple(x.shape)} that mixes samples: leave it out"
            )
        adapted = output if tap.low_rank is None else output + tap.low_rank(x)
        if tap.folds:
            _catch_gradient(tap, x.detach(), adapted, receive, poll)
        return None if tap.low_rank is None else adapted

    return forward


def _catch_gradient(
    tap: Tap, x: torch.Tensor, output: torch.Tensor, receive: Receive, poll: Callable[[], None]
) -> None:
    inputs = {part: fold.inputs(x) for part, fold in tap.folds.items()}
    if not output.requires_grad:
        # The first target layers: the graph begins at their outputs, so nothing below them is differentiated.
        output.requires_grad_(True)

    def backward(delta: torch.Tensor) -> None:
        poll()
        for part, fold in tap.folds.items():
            receive(part, inputs[part], fold.outputs(delta))

    output.register_hook(backward)  # type: ignore[no-untyped-call]
