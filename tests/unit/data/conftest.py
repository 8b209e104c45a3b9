"""A small real tokenizer, and settings whose roots and cache are in the test's own directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from app.core.uris.datasets import check_uri
from tests.own_directory import make_settings, root, settings
from workers.data.conversation import Conversation
from workers.data.fetch import Snapshot, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.own_directory import SettingsFactory

__all__ = ["make_settings", "root", "settings"]

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def conversation(turns: list[dict[str, Any]]) -> Conversation:
    """A conversation whose every reply with words is learned."""
    return Conversation(turns, [turn["role"] == "assistant" and bool(turn["content"].strip()) for turn in turns])


class SnapshotFactory(Protocol):
    def __call__(self, name: str, content: bytes, **changes: Any) -> Snapshot: ...


@pytest.fixture
def snapshot_of(root: Path, make_settings: SettingsFactory) -> SnapshotFactory:
    """Writes a file into the root and fetches it."""

    def make(name: str, content: bytes, **changes: Any) -> Snapshot:
        path = root / name
        path.write_bytes(content)
        settings = make_settings(**changes)
        return fetch(check_uri(path.as_uri(), settings), settings)

    return make


@pytest.fixture(scope="session")
def backend() -> Tokenizer:
    """Byte-level BPE as GPT-2, SmolLM2, Llama 3 and Qwen have it, trained on a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ate the rat\n\n"] * 20, trainer)
    return tokenizer


@pytest.fixture
def chatml(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with a ChatML template that puts in a system prompt of its own."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def plain(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer without a chat template."""
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
