"""Hooks that catch, in one batched pass, what the per-sample gradients of linear maps are made of."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from workers.gradients.experts import watched
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from workers.gradients.tap import Receive, Tap

    Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], torch.Tensor], torch.Tensor | None]


@contextmanager
def captured(
    taps: Mapping[str, Tap], receive: Receive, poll: Callable[[], None], shape: tuple[int, int]
) -> Iterator[None]:
    """Inside, every backward pass gives `receive` each layer's factors as soon as they are known.

    The forward pass keeps only the folded input of a layer (for the B of an adapter r numbers a token); the output's
    gradient is folded and used the moment that the backward pass makes it. Layers run backwards, so at any time
    the gradients of one layer exist.

    Args:
        taps: By the layers' names.
        receive: Called with a gradient's name, u = I x (B, T, b) and d = O delta (B, T, a).
        poll: Called at every layer, forward and backward; what it raises ends the pass.
        shape: The batch's rows B and positions T.
    """
    of_experts: dict[nn.Module, dict[tuple[str, int], Tap]] = {}
    with ExitStack() as stack:
        for name, tap in taps.items():
            if tap.layer.weights:
                of_experts.setdefault(tap.layer.module, {})[tap.layer.weights, tap.layer.expert] = tap
                continue
            hook = _forward_hook(name, tap, receive, poll, shape)
            stack.callback(tap.layer.module.register_forward_hook(hook, with_kwargs=True).remove)
        stack.enter_context(watched(of_experts, receive, poll, shape))
        yield


def by_sample(values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor | None:
    """What a layer saw or made, sample by sample: (B, ..., f) or (B T, ..., f) -> (B, -1, f); None: neither."""
    rows, width = shape
    if values.dim() < 2 or values.shape[0] not in (rows, rows * width):  # noqa: PLR2004 - tokens and features
        return None
    return values.reshape(rows, -1, values.shape[-1])


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A module's input, by whichever name it was given."""
    found: torch.Tensor = args[0] if args else next(iter(kwargs.values()))
    return found


def differentiable(output: torch.Tensor) -> torch.Tensor:
    """The output as part of a graph, which begins there if nothing below is differentiated.

    A copy in that case: what a graph begins with can't be changed in place, as some models do with their projections.
    """
    return output if output.requires_grad else output.detach().requires_grad_(True).clone()


def _forward_hook(name: str, tap: Tap, receive: Receive, poll: Callable[[], None], shape: tuple[int, int]) -> Hook:
    """The hook of one layer: add the adapter and fold the input now, the output's gradient later."""

    def forward(
        _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        poll()
        x = first_input(args, kwargs)
        adapted = output if tap.low_rank is None else output + tap.low_rank(x).to(output.dtype)
        if not tap.folds or not torch.is_grad_enabled():
            return None if tap.low_rank is None else adapted
        seen = by_sample(x.detach(), shape)
        if seen is None:
            raise ModelError(
                f"gradients.layers: {name} sees an input of shape {tuple(x.shape)} that mixes samples: leave it out"
            )
        inputs = {part: fold.inputs(seen) for part, fold in tap.folds.items()}
        adapted = differentiable(adapted)

        def backward(delta: torch.Tensor) -> None:
            poll()
            made = delta.reshape(shape[0], -1, delta.shape[-1])
            for part, fold in tap.folds.items():
                receive(part, inputs[part], fold.outputs(made))

        adapted.register_hook(backward)  # type: ignore[no-untyped-call]
        return adapted

    return forward
