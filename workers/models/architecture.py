"""The few facts about a transformers model that gradients need, found without knowing its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def decoder(model: PreTrainedModel) -> nn.Module:
    """The model without its output head: token ids to last hidden states."""
    return cast("nn.Module", model.get_decoder())  # type: ignore[no-untyped-call]


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """The same model in eval mode (no dropout) with no parameter that asks for a gradient."""
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The layer that makes logits.

    Raises:
        ModelError: There is none, or it is not a plain linear layer.
    """
    head: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear:
        raise ModelError(
            f"model.uri: the output head is {type(head).__name__}, not torch.nn.Linear: choose a causal language model"
        )
    return head


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
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest if isinstance(longest, int) else None


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


def block_prefix(model: PreTrainedModel) -> str:
    """What the names of all modules in the decoder's blocks begin with, as in ``model.layers.``.

    Raises:
        ModelError: The model has no single list of blocks.
    """
    depth = model.config.get_text_config().num_hidden_layers
    lists = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [name for name in lists if not any(name.startswith(other + ".") for other in lists)]
    if len(outer) != 1:
        raise ModelError(
            f"model.uri: {type(model).__name__} has no single list of {depth} blocks: choose a decoder-only model"
        )
    return f"{outer[0]}."


def refuse_experts(model: PreTrainedModel) -> None:
    """Refuse mixtures of experts, whose layers see tokens in another order than the batch's.

    Raises:
        ModelError: The configuration speaks of more than one expert.
    """
    config = model.config.get_text_config()
    for field in EXPERT_COUNTS:
        experts = getattr(config, field, None)
        if isinstance(experts, int) and experts > 1:
            raise ModelError(
                f"model.uri: a mixture of experts ({field} = {experts}) can't be a proxy: "
                "choose a dense model of the same family"
            )
