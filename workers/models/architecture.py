"""The few facts about a transformers model that gradients need, found without knowing its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from torch import nn

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

LENGTHS = ("max_position_embeddings", "max_seq_len", "max_sequence_length")
"""Fields in which configurations say how many tokens a model was made for."""
BLOCK_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of a block amid the name of what is in it."""


def decoder(model: PreTrainedModel) -> nn.Module:
    """The model without its output head: token ids to last hidden states."""
    found = cast("nn.Module", model.get_decoder())  # type: ignore[no-untyped-call]
    return model.base_model if isinstance(found, nn.Linear) else found  # a head of that name


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """The same model in eval mode (no dropout) with no parameter that asks for a gradient."""
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The layer that makes logits.

    Raises:
        ModelError: There is none, or it is not a linear layer.
    """
    head = maybe_output_head(model)
    if head is None:
        found: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        raise ModelError(
            f"model.uri: the output head is {type(found).__name__}, not torch.nn.Linear: choose another target than "
            "last_layer, or another model"
        )
    return head


def maybe_output_head(model: PreTrainedModel) -> nn.Linear | None:
    """The layer that makes logits; None where that is not one linear layer."""
    head: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head if isinstance(head, nn.Linear) else None


def output_head_name(model: PreTrainedModel) -> str:
    """The full name of the output head."""
    head = output_head(model)
    return next(str(name) for name, module in model.named_modules() if module is head)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of tokens that the model has an embedding for."""
    weight = cast("nn.Embedding", model.get_input_embeddings()).weight
    return int(weight.shape[0])


def longest_input(config: PreTrainedConfig) -> int | None:
    """Number of tokens that a model was made for; None where its configuration doesn't say."""
    text = config.get_text_config()
    found = [getattr(text, name, None) for name in LENGTHS]
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def short_length(config: PreTrainedConfig) -> int | None:
    """Tokens up to which a model turns positions by another table than beyond (longrope); None: one table for all.

    The whole batch is turned by the table of its longest row, so a batch must keep to one side.
    """
    text = config.get_text_config()
    parameters: object = getattr(text, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return None
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    lengths = [one.get("original_max_position_embeddings") for one in each if one.get("rope_type") == "longrope"]
    return next((length for length in lengths if isinstance(length, int)), None)


def check_length(row: int, tokens: int, longest: int | None) -> None:
    """Refuse a sample that is longer than the model was made for.

    Raises:
        ModelError: It is.
    """
    if longest is not None and tokens > longest:
        raise ModelError(
            f"model.max_length: row {row} has {tokens} tokens, and the model was made for {longest}: "
            f"set max_length to {longest} or less"
        )


def block_prefixes(model: PreTrainedModel) -> tuple[str, ...]:
    """What the names of the modules in the decoder's blocks begin with, as in ``model.layers.``.

    Where no list has as many entries as the configuration says that there are blocks, the decoder's outermost lists
    count as the blocks, and where it has none, the whole decoder.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    inside = decoder(model)
    here = next(str(name) for name, module in model.named_modules() if module is inside)
    start = f"{here}." if here else ""
    lists = {start + name: len(module) for name, module in inside.named_modules() if isinstance(module, nn.ModuleList)}
    deep = [name for name, length in lists.items() if length == depth] or list(lists)
    outer = [name for name in deep if not any(name.startswith(other + ".") for other in deep)]
    return tuple(f"{name}." for name in outer) or (start,)
