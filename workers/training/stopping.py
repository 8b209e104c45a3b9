"""Stop inside a pass, which over thousands of tokens takes minutes without an accelerator."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from workers.data.stopping import Stopped
from workers.models.architecture import block_prefixes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn
    from transformers import PreTrainedModel


@contextmanager
def stopping_at_blocks(model: PreTrainedModel, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Inside, a pass of the model raises `Stopped` at its next block, either way, once `should_stop` says so."""

    def before(_block: nn.Module, _args: object) -> None:
        if should_stop():
            raise Stopped

    def after(_block: nn.Module, _args: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(backwards)  # type: ignore[no-untyped-call]

    def backwards(_gradient: torch.Tensor) -> None:
        if should_stop():
            raise Stopped

    with ExitStack() as stack:
        for block in _blocks(model):
            stack.callback(block.register_forward_pre_hook(before).remove)
            stack.callback(block.register_forward_hook(after).remove)
        yield


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    prefixes = block_prefixes(model)
    return [
        module
        for name, module in model.named_modules()
        if any(name.startswith(prefix) and name != prefix and "." not in name[len(prefix) :] for prefix in prefixes)
    ]
