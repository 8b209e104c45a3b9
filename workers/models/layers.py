"""The linear maps of a model that gradients can be taken of, whatever class they are: what a tap needs to know of each.

A linear map is a module (torch.nn.Linear and its subclasses, quantised ones among them, and the transposed Conv1D of
GPT-2) or one expert's matrix in the three-dimensional weights of a mixture of experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from collections.abc import Iterator

MATRIX = 2
EXPERT_WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")
"""Names of the three-dimensional weights of transformers' interface for experts."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """One linear map y = W x of a model.

    Attributes:
        module: The layer, or the module that holds all experts of a block.
        out_features: Length of y.
        in_features: Length of x.
        weights: For an expert, the name of its module's parameter; else empty.
        expert: For an expert, its number; else 0.
    """

    module: nn.Module
    out_features: int
    in_features: int
    weights: str = ""
    expert: int = 0

    @property
    def device(self) -> torch.device:
        """Where the map is computed, which for weights that are kept elsewhere is not where they are now."""
        weight = self.weight
        if weight.is_meta:
            return torch.device(cast("Any", self.module)._hf_hook.execution_device)  # noqa: SLF001 - accelerate's name
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of what goes in and comes out: the weight's, or, where that is a storage format, float32's place holder."""
        weight = self.weight
        stored_as_computed = weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
        if stored_as_computed:
            return weight.dtype
        computed: object = getattr(self.module, "compute_dtype", None)
        return computed if isinstance(computed, torch.dtype) else torch.float32

    @property
    def weight(self) -> torch.Tensor:
        """The parameter that holds the weight as it is stored; for an expert, those of all experts of the block."""
        return cast("torch.Tensor", getattr(self.module, self.weights or "weight"))


def linear_map(module: nn.Module) -> LinearMap | None:
    """The linear map that a module is; None where it is something else."""
    if isinstance(module, nn.Linear):
        return LinearMap(module, module.out_features, module.in_features)
    if isinstance(module, Conv1D):
        return LinearMap(module, module.nf, module.nx)
    return None


def holds_experts(module: nn.Module) -> bool:
    """Whether a module is the experts of a block, by transformers' interface for them."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate") and hasattr(module, "num_experts")


def expert_maps(name: str, module: nn.Module) -> Iterator[tuple[str, LinearMap]]:
    """The linear maps of a block's experts by name, as ``model.layers.0.mlp.experts.down_proj.3``.

    Args:
        name: The module's name.
        module: What `holds_experts`.
    """
    for weights in EXPERT_WEIGHTS:
        parameter: object = getattr(module, weights, None)
        if isinstance(parameter, torch.Tensor):
            experts, rows, columns = parameter.shape
            outputs, inputs = (columns, rows) if cast("Any", module).is_transposed else (rows, columns)
            for expert in range(experts):
                yield f"{name}.{weights}.{expert}", LinearMap(module, outputs, inputs, weights, expert)


def is_router(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> bool:
    """Whether a linear map chooses among experts that lie beside it: as many outputs as there are experts."""
    found = linear_map(module)
    beside = modules.get(f"{name.rpartition('.')[0]}.experts")
    count: object = getattr(beside, "num_experts", None)
    if found is None or beside is None:
        return False
    return found.out_features == (count if isinstance(count, int) else len(list(beside.children())))


def other_weights(module: nn.Module) -> list[str]:
    """Names of the parameters of two axes or more that a module holds itself."""
    return [name for name, parameter in module.named_parameters(recurse=False) if parameter.dim() >= MATRIX]
