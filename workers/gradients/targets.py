"""Which linear layers of a model gradients are taken of."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from workers.models.architecture import block_prefix, output_head, output_head_name, refuse_experts
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from workers.gradients.adapter import Adapter
    from workers.gradients.config import GradientConfig

MATRIX = 2
WILDCARDS = frozenset("*?[")


def target_layers(
    model: PreTrainedModel, config: GradientConfig, adapter: Adapter | None = None
) -> dict[str, nn.Linear]:
    """The layers by full name, in the order in which the model names them.

    Args:
        model: The proxy.
        config: Target and choice of layers.
        adapter: Restricts the layers to those that it adapts.

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
        if not _wanted(name, config.layers) or (adapter is not None and name not in adapter.layers):
            continue
        if type(module) is nn.Linear:
            layers[name] = module
        elif any(parameter.dim() >= MATRIX for parameter in module.parameters(recurse=False)):
            raise ModelError(
                f"gradients.layers: {name} is a {type(module).__name__}, not a plain linear layer: choose a "
                "model whose blocks are made of torch.nn.Linear, unquantised, or name the layers to use"
            )
    absent = [wanted for wanted in config.layers or () if not any(_matches(name, wanted) for name in layers)]
    if absent or not layers:
        linear = [name for name, module in inside.items() if type(module) is nn.Linear]
        there = sorted({name.rpartition(".")[2] for name in (linear if adapter is None else adapter.layers)})
        raise ModelError(
            f"gradients.layers: no linear layer is named {', '.join(absent) or 'anything'}: "
            f"this {'model' if adapter is None else 'adapter'} has {', '.join(there) or 'none'}"
        )
    return layers


def check_adapter(model: PreTrainedModel, adapter: Adapter) -> dict[str, nn.Linear]:
    """The layers that a given adapter adapts, by full name.

    Raises:
        ModelError: It was made for another model, or adapts something else than linear layers of the blocks.
    """
    prefix = block_prefix(model)
    modules = dict(model.named_modules())
    layers: dict[str, nn.Linear] = {}
    for name, low_rank in adapter.layers.items():
        module = modules.get(name)
        if module is None:
            raise ModelError(
                f"gradients.adapter: adapts {name}, which the model does not have: was it made for another?"
            )
        if type(module) is not nn.Linear or not name.startswith(prefix):
            raise ModelError(
                f"gradients.adapter: adapts {name}, a {type(module).__name__}: only linear layers of the decoder's "
                "blocks can be; train the adapter without it"
            )
        made_for = (low_rank.up.shape[0], low_rank.down.shape[1])
        if made_for != tuple(module.weight.shape):
            raise ModelError(
                f"gradients.adapter: is made for a {name} of shape {made_for}, the model's is "
                f"{tuple(module.weight.shape)}: give the model that the adapter was trained on"
            )
        layers[name] = module
    return layers


def _wanted(name: str, layers: Sequence[str] | None) -> bool:
    return layers is None or any(_matches(name, wanted) for wanted in layers)


def _matches(name: str, wanted: str) -> bool:
    """Whether a full name ends in the parts wanted, or fits the pattern from any part on."""
    if WILDCARDS.isdisjoint(wanted):
        return name == wanted or name.endswith("." + wanted)
    return fnmatchcase(name, wanted) or fnmatchcase(name, "*." + wanted)
