"""A model without its numbers, on torch's meta device: what it would be, before anything is made of that size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workers.models.errors import ModelError
from workers.models.files import CONFIG
from workers.models.quantised import PACKED

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedModel

    from workers.models.files import ModelFiles
    from workers.models.limits import ModelLimits

CAPACITY = "expert_capacity"
SPARE_ELEMENTS = 1 << 27
"""Numbers that a model may have beyond those in its files: rotary tables, masks."""


def model_on_meta(files: ModelFiles, directory: Path, limits: ModelLimits) -> PreTrainedModel:
    """The model that a configuration describes, held to what the weight files say.

    Args:
        files: The model's files.
        directory: What `ModelFiles.alone` shows of them.
        limits: How large it may be.

    Raises:
        ModelError: The configuration asks for more than the weight files hold, or than the limit.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    _check_layers(config, files)
    _check_routers(config, files)
    make: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = cast("PreTrainedModel", make(config, trust_remote_code=False))
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    stored = sum(tensor.elements for tensor in files.tensors)
    if files.weights_stored_as is not None:
        stored *= PACKED
    if asked > stored + SPARE_ELEMENTS:
        raise ModelError(
            f"model.uri: {files.path.name}/{CONFIG} asks for {asked:,} numbers, but its weight files hold {stored:,}: "
            "copy the model again"
        )
    size = asked * torch.float32.itemsize
    if size > limits.max_bytes:
        raise ModelError(
            f"model.uri: {files.path.name} takes {size:,} bytes in float32, the limit is {limits.max_bytes:,}: "
            "use a smaller proxy model, or raise SPICE_MODEL_MAX_BYTES"
        )
    return model


def _check_routers(config: PreTrainedConfig, files: ModelFiles) -> None:
    """Refuse experts that take no more than so many tokens of a batch: which, a row's neighbours decide."""
    capacity = getattr(config.get_text_config(), CAPACITY, None)
    if capacity is not None:
        raise ModelError(
            f"model.uri: {files.path.name}/{CONFIG} limits the tokens that an expert takes ({CAPACITY} {capacity}), so "
            "that a row's gradient would depend on its neighbours in the batch: choose a model without such a limit"
        )


def _check_layers(config: PreTrainedConfig, files: ModelFiles) -> None:
    """Refuse more layers than there are tensors: a module for each would fill the memory even without numbers."""
    held = len(files.tensors)
    for name, value in config.get_text_config().to_dict().items():
        counts_layers = name.endswith("_layers") and name != "max_window_layers"
        if counts_layers and isinstance(value, int) and value > held:
            raise ModelError(
                f"model.uri: {files.path.name}/{CONFIG} asks for {name} {value:,}, but its weight files hold {held:,} "
                "tensors: copy the model again"
            )
