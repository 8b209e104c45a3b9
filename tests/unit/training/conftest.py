"""A tiny Llama, rows of tokens for it, and a store for checkpoints."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workers.data.samples import Sample
from workers.models.architecture import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More would wait for one another longer than they work on matrices of 16."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(model_as_made: PreTrainedModel) -> PreTrainedModel:
    """A model of the test's own."""
    return copy.deepcopy(model_as_made)


@pytest.fixture(scope="module")
def model_as_made() -> PreTrainedModel:
    """Two blocks of 16 over 40 tokens, random."""
    torch.manual_seed(0)
    return frozen(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=64,
                tie_word_embeddings=True,
                eos_token_id=1,
                bos_token_id=None,
                pad_token_id=None,
            )
        )
    )


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """24 rows in which a response repeats its prompt's tokens."""
    random = np.random.default_rng(0)
    rows = []
    for row in range(24):
        prompt = random.integers(2, 40, size=int(random.integers(2, 6)))
        ids = np.concatenate([prompt, np.full(int(random.integers(1, 6)), prompt[-1]), [1]]).astype(np.int32)
        rows.append(Sample(row, ids, np.arange(len(ids)) >= len(prompt)))
    return rows
