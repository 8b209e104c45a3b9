"""A model that is larger than one GPU: which of its parts go to which device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workers.models.architecture import block_prefixes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from transformers import PreTrainedModel


def device_map(model: PreTrainedModel, devices: Sequence[torch.device]) -> dict[str, str]:
    """Device by module name, as accelerate has it: the blocks in turn, about as many numbers on each device.

    What is around the blocks goes to the first device, where a batch begins and its losses end: embeddings and head
    often share one weight. A block stays whole.

    Args:
        model: The model; on the meta device will do.
        devices: The devices, in the order in which the blocks run.
    """
    if len(set(devices)) == 1:
        return {"": str(devices[0])}
    blocks = [name for prefix in block_prefixes(model) for name in _children(model, prefix)]
    inside = tuple(f"{name}." for name in blocks)
    around = [name for name in _tensor_holders(model) if not f"{name}.".startswith(inside)]
    sizes = {name: _size(model.get_submodule(name)) for name in blocks}
    total = _size(model)
    placed = dict.fromkeys(around, str(devices[0]))
    before = total - sum(sizes.values())
    for name, size in sizes.items():
        placed[name] = str(devices[min(len(devices) - 1, int((before + size / 2) * len(devices) / max(1, total)))])
        before += size
    return placed


def _children(model: PreTrainedModel, prefix: str) -> Iterator[str]:
    """Names of the blocks that begin with a prefix."""
    parent = model.get_submodule(prefix.removesuffix("."))
    if isinstance(parent, nn.ModuleList):
        yield from (f"{prefix}{number}" for number in range(len(parent)))
    else:
        yield prefix.removesuffix(".")


def _tensor_holders(model: PreTrainedModel) -> Iterator[str]:
    """What a device is named for: modules without others in them; of others, each parameter and buffer of their own."""
    for name, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and not any(True for _ in module.children()):
            yield str(name)
        else:
            yield from (f"{name}.{tensor}" if name else tensor for tensor, _ in own)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
