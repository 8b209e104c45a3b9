"""Quantised weights: which formats are loaded, what they are said to be, and how transformers is asked to load them.

A format that transformers can turn back into plain numbers is (FP8, MXFP4, compressed-tensors, and bitsandbytes' int8,
whose own product looks for outliers in the whole batch, so that a sample's neighbours would change it); gradients are
taken through the one that its library computes with (bitsandbytes' 4 bits; GPTQ and AWQ with gptqmodel). What a
configuration says beyond the fields that are known here is not passed on: it may name kernels of the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

    Settings = Mapping[str, Any]

FIELDS: dict[str, tuple[str, ...]] = {
    "bitsandbytes": (
        "load_in_8bit",
        "load_in_4bit",
        "llm_int8_threshold",
        "llm_int8_skip_modules",
        "llm_int8_has_fp16_weight",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "bnb_4bit_quant_storage",
    ),
    "fp8": ("activation_scheme", "weight_block_size", "modules_to_not_convert"),
    "mxfp4": ("modules_to_not_convert",),
    "gptq": ("bits", "group_size", "damp_percent", "desc_act", "sym", "true_sequential", "checkpoint_format", "meta"),
    "awq": ("bits", "group_size", "zero_point", "version", "modules_to_not_convert"),
    "compressed-tensors": (
        "config_groups",
        "format",
        "quantization_status",
        "global_compression_ratio",
        "ignore",
        "kv_cache_scheme",
        "sparsity_config",
        "transform_config",
    ),
}
"""By method: what of its settings is passed on."""
DEQUANTISED = frozenset({"fp8", "mxfp4", "compressed-tensors"})
"""Methods whose weights are plain numbers once they are loaded."""
BFLOAT16_ON_CPU = "support_avx512bf16_for_cpu"
"""Attribute of bitsandbytes' 4-bit layers."""
PACKED = 8
"""Most numbers that one stored number holds: eight of 4 bits in an int32."""


def settled(config: Settings, name: str, dtype: str) -> dict[str, Any] | None:
    """The quantization_config that transformers is given; None for weights that are plain numbers.

    Args:
        config: A model's configuration, as its file holds it.
        name: Of the file, for messages.
        dtype: What the job computes in.

    Raises:
        ModelError: The method is none that can be loaded.
    """
    found: object = config.get("quantization_config") if isinstance(config, dict) else None
    if not found:
        return None
    method = str(found.get("quant_method")) if isinstance(found, dict) else None
    if not isinstance(found, dict) or method not in FIELDS:
        raise ModelError(
            f"model.uri: {name} says that the model is quantised by {str(method)[:50]!r}, and what can be loaded is "
            f"{', '.join(sorted(FIELDS))}, or GGUF: use the original weights in bfloat16"
        )
    kept = {field: found[field] for field in FIELDS[method] if field in found}
    kept["quant_method"] = method
    if method in DEQUANTISED:
        kept["dequantize"] = True
    if method == "bitsandbytes":
        kept["bnb_4bit_compute_dtype"] = dtype
    return kept


def stored_as(settings: Settings | None) -> str | None:
    """The format of the weights, as a result names it: nf4, fp4, int8, fp8, ...; None for plain numbers."""
    if settings is None:
        return None
    if settings["quant_method"] != "bitsandbytes":
        return str(settings["quant_method"])
    return str(settings.get("bnb_4bit_quant_type", "fp4")) if settings.get("load_in_4bit") else "int8"


def plain_numbers(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its quantised layers as torch.nn.Linear of a dtype."""
    return cast("PreTrainedModel", cast("Any", model).dequantize(dtype=dtype))


def keep_the_dtype(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from its product for CPUs with AVX512-BF16.

    It computes in bfloat16 whatever the job computes in, rounds the scales of the stored weights for good, and needs
    rows of whole blocks: the same request would give other gradients than on another CPU.
    """
    for module in model.modules():
        if hasattr(module, BFLOAT16_ON_CPU):
            setattr(module, BFLOAT16_ON_CPU, False)
