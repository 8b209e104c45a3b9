"""Tiny random models of several architectures, and samples for them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
)

from workers.data.samples import Sample
from workers.gradients.adapter import Adapter, LowRank
from workers.gradients.config import GradientConfig
from workers.gradients.targets import target_layers
from workers.models.proxy import ProxyModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama_tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5, sliding_window=6),
    "cohere": CohereConfig(**SIZES, logit_scale=0.25),
    "granite": GraniteConfig(**SIZES, logits_scaling=3.0, embedding_multiplier=2.0, residual_multiplier=0.7),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
    ),
}


def tiny_network(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model whose biases and norms are random too, so that a test sees them, and whose dropout is on."""
    torch.manual_seed(seed)
    # A configuration of its own: what a test changes in it is no other test's.
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[architecture]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4.0)
    return model.train()


def tiny_model(architecture: str, seed: int = 0) -> ProxyModel:
    return ProxyModel(model=tiny_network(architecture, seed), tokenizer=None, revision="r", path=Path())  # type: ignore[arg-type]


def made_up_samples(count: int, seed: int = 0, longest: int = 24) -> list[Sample]:
    """Prompts and responses of many lengths; some go on after the response, some have several responses."""
    random = np.random.default_rng(seed)
    samples = []
    for row in range(count):
        length = int(random.integers(2, longest + 1))
        mask = random.random(length) < random.choice([0.2, 0.5, 1.0])
        mask[random.integers(1, length)] = True
        ids = random.integers(3, VOCABULARY, length).astype(np.int32)
        samples.append(Sample(row=row, input_ids=ids, loss_mask=mask))
    return samples


@st.composite
def awkward_samples(draw: st.DrawFn) -> list[Sample]:
    """One to eight samples: lengths around those where kernels change, rows of one token over and over, few labels."""
    samples = []
    for row in range(draw(st.integers(1, 8))):
        length = draw(st.sampled_from([2, 3, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65, 128]))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        ids = random.integers(3, VOCABULARY, length).astype(np.int32)
        if draw(st.booleans()):
            ids[:] = ids[0]
        mask = random.random(length) < draw(st.sampled_from([0.0, 0.1, 1.0]))
        mask[draw(st.integers(1, length - 1))] = True
        samples.append(Sample(row=row, input_ids=ids, loss_mask=mask))
    return samples


def random_adapter(network: PreTrainedModel, names: Sequence[str] | None = None, rank: int = 3) -> Adapter:
    """An adapter with a B that is not zero, on the layers named or on every linear layer of the blocks."""
    torch.manual_seed(7)
    layers = target_layers(network, GradientConfig(layers=None if names is None else tuple(names)))
    return Adapter(
        {
            name: LowRank(
                0.3 * torch.randn(rank, layer.in_features), 0.3 * torch.randn(layer.out_features, rank), scale=0.5
            )
            for name, layer in layers.items()
        },
        revision="a",
    )
