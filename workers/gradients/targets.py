"""Which linear maps of a model gradients are taken of, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from workers.gradients.trial import NEVER_CALLED, unusable
from workers.models.architecture import BLOCK_NUMBER, block_prefixes, output_head, output_head_name
from workers.models.errors import ModelError
from workers.models.layers import (
    LinearMap,
    expert_maps,
    holds_experts,
    is_router,
    linear_map,
    other_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn
    from transformers import PreTrainedModel

    from workers.gradients.adapter import Adapter
    from workers.gradients.config import GradientConfig

WILDCARDS = frozenset("*?[")
ROUTER = "chooses among experts, and a router's own gradient is not taken"


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The choice of a configuration.

    Attributes:
        layers: The linear maps by full name, in the order in which the model names them.
        left_out: What else the blocks are made of, or what was asked for and can't be had: names, with ``*`` for the
            block's number where all blocks are meant. Biases and the weights of norms are never among the targets, and
            are not listed.
    """

    layers: dict[str, LinearMap]
    left_out: tuple[str, ...] = ()


def target_layers(
    model: PreTrainedModel, config: GradientConfig, adapter: Adapter | None = None
) -> dict[str, LinearMap]:
    """The layers of `targets`."""
    return targets(model, config, adapter).layers


def targets(model: PreTrainedModel, config: GradientConfig, adapter: Adapter | None = None) -> Targets:
    """Choose the linear maps.

    Args:
        model: The proxy.
        config: Target and choice of layers.
        adapter: Restricts the layers to those that it adapts.

    Raises:
        ModelError: No layer of that name, or a layer that was named can't be used; the message says why.
    """
    if config.target == "last_layer":
        head = output_head(model)
        return Targets({output_head_name(model): LinearMap(head, head.out_features, head.in_features)})
    choice = _Choice(model, config.layers, adapter)
    for name, module in _inside(model).items():
        choice.offer(name, module)
    choice.check(config.layers)
    return Targets(choice.layers, _summary(choice.left_out, _inside(model)))


class _Choice:
    """Goes through the modules of the blocks and keeps what is wanted."""

    def __init__(self, model: PreTrainedModel, wanted: Sequence[str] | None, adapter: Adapter | None) -> None:
        self.layers: dict[str, LinearMap] = {}
        self.left_out: list[str] = []
        self.refused: dict[str, str] = {}
        self._wanted, self._adapter = wanted, adapter
        self._modules = dict(model.named_modules())
        self._unusable = unusable(model)
        self._linear: list[str] = []

    def offer(self, name: str, module: nn.Module) -> None:
        """Take a module, leave it out by name, or pass over it.

        Raises:
            ModelError: It was named, and is not linear.
        """
        if holds_experts(module):
            self._offer_experts(name, module)
            return
        found = linear_map(module)
        if found is not None:
            self._linear.append(name)
        if self._adapter is not None and name not in self._adapter.layers:
            return
        if not _matched(name, self._wanted):
            return
        if found is None:
            self._pass_over(name, module)
            return
        reason = ROUTER if is_router(name, module, self._modules) else self._unusable.get(name)
        if reason is None:
            self.layers[name] = found
            return
        if self._adapter is not None and reason != NEVER_CALLED:
            raise ModelError(f"gradients.adapter: adapts {name}, which {reason}: train the adapter without it")
        self.left_out.append(name)
        self.refused[name] = reason

    def check(self, wanted: Sequence[str] | None) -> None:
        """Refuse a choice of which nothing is there.

        Raises:
            ModelError: The message names what there is.
        """
        absent = [
            one for one in wanted or () if not any(_matches(name, one) or _inner(name, one) for name in self.layers)
        ]
        for one in absent:
            for name, reason in self.refused.items():
                if _matches(name, one):
                    raise ModelError(f"gradients.layers: {name} {reason}: leave it out")
        if absent or not self.layers:
            names = self._linear if self._adapter is None else self._adapter.layers
            there = sorted({name.rpartition(".")[2] for name in names})
            raise ModelError(
                f"gradients.layers: no linear layer is named {', '.join(absent) or 'anything'}: "
                f"this {'adapter' if self._adapter else 'model'} has {', '.join(there) or 'none'}"
            )

    def _offer_experts(self, name: str, module: nn.Module) -> None:
        """Experts are a target only where they are asked for: there are too many of them to come unasked."""
        maps = dict(expert_maps(name, module))
        asked = {part: found for part, found in maps.items() if self._wanted is not None and self._asked(name, part)}
        if self._adapter is not None:
            asked = {part: found for part, found in maps.items() if part in self._adapter.layers}
        self.layers.update(asked)
        if not asked and self._wanted is None:
            self.left_out.append(name)

    def _asked(self, module: str, part: str) -> bool:
        return any(
            _matches(module, one) or _matches(part, one) or _matches(part.rpartition(".")[0], one)
            for one in self._wanted or ()
        )

    def _pass_over(self, name: str, module: nn.Module) -> None:
        weights = other_weights(module)
        if not weights:
            return
        named = [one for one in self._wanted or () if WILDCARDS.isdisjoint(one) and _matches(name, one)]
        if named:
            raise ModelError(
                f"gradients.layers: {name} is a {type(module).__name__}, not a linear layer: name others, or leave "
                "gradients.layers out"
            )
        self.left_out.extend([name] if weights == ["weight"] else [f"{name}.{weight}" for weight in weights])


def check_adapter(model: PreTrainedModel, adapter: Adapter) -> dict[str, LinearMap]:
    """The layers that a given adapter adapts, by full name.

    Raises:
        ModelError: It was made for another model, or adapts something else than linear layers of the blocks.
    """
    prefixes = block_prefixes(model)
    modules = dict(model.named_modules())
    experts = {
        part: found
        for name, module in modules.items()
        if holds_experts(module)
        for part, found in expert_maps(name, module)
    }
    layers: dict[str, LinearMap] = {}
    for name, low_rank in adapter.layers.items():
        module = modules.get(name)
        found = experts.get(name) if module is None else linear_map(module)
        if module is None and found is None:
            raise ModelError(
                f"gradients.adapter: adapts {name}, which the model does not have: was it made for another?"
            )
        if found is None or not name.startswith(prefixes):
            raise ModelError(
                f"gradients.adapter: adapts {name}, a {type(module).__name__}: only linear layers of the decoder's "
                "blocks can be; train the adapter without it"
            )
        made_for = (low_rank.up.shape[0], low_rank.down.shape[1])
        if made_for != (found.out_features, found.in_features):
            raise ModelError(
                f"gradients.adapter: is made for a {name} of shape {made_for}, the model's is "
                f"{(found.out_features, found.in_features)}: give the model that the adapter was trained on"
            )
        layers[name] = found
    return layers


def _inside(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules of the decoder's blocks, by full name."""
    prefixes = block_prefixes(model)
    return {str(name): module for name, module in model.named_modules() if str(name).startswith(prefixes)}


def _summary(names: Iterable[str], inside: dict[str, nn.Module]) -> tuple[str, ...]:
    """The names with ``*`` for the block's number, where no block's module of the kind is still in."""
    out = list(dict.fromkeys(names))
    alike: dict[str, list[str]] = {}
    for name in out:
        alike.setdefault(BLOCK_NUMBER.sub("*", name), []).append(name)
    there: dict[str, int] = {}
    for name in inside:
        general = BLOCK_NUMBER.sub("*", name)
        there[general] = there.get(general, 0) + 1
    return tuple(
        line
        for general, members in alike.items()
        for line in ([general] if len(members) >= there.get(general, 0) else members)
    )


def _matched(name: str, layers: Sequence[str] | None) -> bool:
    return layers is None or any(_matches(name, wanted) for wanted in layers)


def _inner(part: str, wanted: str) -> bool:
    """Whether what is wanted are the experts that a matrix belongs to, or all experts' matrices of its name."""
    weights = part.rpartition(".")[0]
    return _matches(weights, wanted) or _matches(weights.rpartition(".")[0], wanted)


def _matches(name: str, wanted: str) -> bool:
    """Whether a full name ends in the parts wanted, or fits the pattern from any part on."""
    if WILDCARDS.isdisjoint(wanted):
        return name == wanted or name.endswith("." + wanted)
    return fnmatchcase(name, wanted) or fnmatchcase(name, "*." + wanted)
