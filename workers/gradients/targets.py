"""Which linear layers of a model gradients are taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workers.gradients.architecture import block_prefix, output_head, output_head_name, refuse_experts
from workers.gradients.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workers.gradients.config import GradientConfig

MATRIX = 2


def target_layers(model: PreTrainedModel, config: GradientConfig) -> dict[str, nn.Linear]:
    """The layers by full name, in the order in which the model names them.

    Raises:
        ModelError: A mixture of experts, weights that are not in plain linear layers, or no layer of that name.
    """
    refuse_experts(model)
    if config.target == "last_layer":
        return {output_head_name(model): output_head(model)}
    prefix = block_prefix(model)
    inside = {name: module for name, module in model.named_modules() if name.startswith(prefix)}
    layers: dict[str, nn.Linear] = {}
    for name, module in inside.items():
        if not _wanted(name, config.modules):
            continue
        if type(module) is nn.Linear:
            layers[name] = module
        elif any(parameter.dim() >= MATRIX for parameter in module.parameters(recurse=False)):
            raise ModelError(
                f"gradients.modules: {name} is a {type(module).__name__}, not a plain linear layer: choose a "
                "model whose blocks are made of torch.nn.Linear, unquantised, or name the layers to use"
            )
    absent = [part for part in config.modules or () if not any(_wanted(name, (part,)) for name in layers)]
    if absent or not layers:
        there = sorted({name.rpartition(".")[2] for name, module in inside.items() if type(module) is nn.Linear})
        raise ModelError(
            f"gradients.modules: no linear layer is named {', '.join(absent) or 'anything'}: "
            f"this model has {', '.join(there) or 'none'}"
        )
    return layers


def _wanted(name: str, modules: tuple[str, ...] | None) -> bool:
    return modules is None or name.endswith(tuple("." + part for part in modules))
