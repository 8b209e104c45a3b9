"""A fresh LoRA adapter in a proxy model, for as long as a run trains and scores it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from workers.gradients.config import GradientConfig
from workers.gradients.targets import target_layers
from workers.models.architecture import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

ALPHA_OVER_RANK = 2


@contextmanager
def with_lora(model: PreTrainedModel, *, rank: int, seed: int) -> Iterator[PeftModel]:
    """The model with a fresh adapter on the linear layers of its blocks; without it again afterwards.

    A is drawn from the seed and B is zero, as PEFT begins. The model's own weights stay frozen and are not touched.

    Raises:
        ModelError: The model has no such layers.
    """
    layers = list(target_layers(model, GradientConfig(target="lora", rank=rank)))
    config = LoraConfig(r=rank, lora_alpha=ALPHA_OVER_RANK * rank, target_modules=layers, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = cast("PeftModel", get_peft_model(model, config))
    try:
        yield adapted
    finally:
        cast("Any", adapted.base_model).unload()
        if hasattr(model, "peft_config"):
            del model.peft_config
        frozen(model)
