"""Hooks that catch, in one batched pass, what the per-sample gradients of linear layers are made of."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workers.gradients.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

    from workers.gradients.sketch import LayerFold

    Receive = Callable[[str, torch.Tensor, torch.Tensor], None]

BATCHED = 3
"""Axes of a layer's input that keeps samples apart: (B, T, in)."""


@contextmanager
def captured(
    layers: Mapping[str, tuple[nn.Linear, LayerFold]], receive: Receive, poll: Callable[[], None]
) -> Iterator[None]:
    """Inside, every backward pass gives `receive` each layer's factors as soon as they are known.

    The forward pass keeps only the folded input of a layer (for LoRA r numbers a token); the output's gradient is
    folded and used the moment that the backward pass makes it. Layers run backwards, so at any time the
    gradients of one layer exist.

    Args:
        layers: The layers by name, each with its maps I and O.
        receive: Called with the name, u = I x (B, T, b) and d = O delta (B, T, a).
        poll: Called at every layer, forward and backward; what it raises ends the pass.
    """
    handles = [
        layer.register_forward_hook(_forward_hook(name, fold, receive, poll)) for name, (layer, fold) in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward_hook(
    name: str, fold: LayerFold, receive: Receive, poll: Callable[[], None]
) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
    """The hook of one layer: fold its input now, its output's gradient later."""

    def forward(_layer: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        poll()
        x = args[0].detach()
        if x.dim() != BATCHED:
            raise ModelError(
                f"gradients.modules: {name} sees an input of shape {tuple(x.shape)} that mixes samples: leave it out"
            )
        u = fold.inputs(x)
        if not output.requires_grad:
            # The first target layers: the graph begins at their outputs, so nothing below them is differentiated.
            output.requires_grad_(True)

        def backward(delta: torch.Tensor) -> None:
            poll()
            receive(name, u, fold.outputs(delta))

        output.register_hook(backward)  # type: ignore[no-untyped-call]

    return forward
