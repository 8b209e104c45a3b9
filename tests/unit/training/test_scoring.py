"""Scores of held-out rows against what is worked out one row at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from workers.data.samples import Sample
from workers.data.stopping import Stopped
from workers.training.scoring import Passes, last_turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<end>": 1, **{f"w{number}": number for number in range(2, 40)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w2")), pad_token="<pad>", eos_token="<end>"
    )


def _greedy(model: PreTrainedModel, prompt: np.ndarray, count: int) -> list[int]:
    """The likeliest token after another, until the end token."""
    ids = prompt.tolist()
    for _ in range(count):
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == 1:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_exact_match_is_the_greedy_continuation(model: PreTrainedModel, samples: list[Sample]) -> None:
    rows = []
    for number, sample in enumerate(samples):
        prompt, response = last_turn(sample)
        answer = _greedy(model, prompt, 4) if number % 2 else response[:4].tolist()
        ids = np.array([*prompt, *answer, 1], dtype=np.int32)
        rows.append(Sample(number, ids, np.arange(len(ids)) >= len(prompt)))
    found = Passes(model, 40).exact_matches(rows, _tokenizer(), 4)
    expected = [
        _greedy(model, prompt, 4) == [token for token in response.tolist() if token != 1]
        for prompt, response in map(last_turn, rows)
    ]
    assert found.tolist() == [float(one) for one in expected]
    assert found[1::2].all()
    assert not found.all()


def test_a_choice_is_right_where_the_right_option_is_the_likeliest(
    model: PreTrainedModel, samples: list[Sample]
) -> None:
    passes = Passes(model, 50)
    likelihood = -passes.losses(samples)
    item = np.arange(24) // 4
    right = np.arange(24) % 4 == 2
    best = likelihood.reshape(6, 4).argmax(axis=1)
    assert passes.choices(samples, item, right).tolist() == (best == 2).astype(float).tolist()
    assert passes.choices([samples[0]] * 4, np.zeros(4, dtype=np.int64), np.array([True, False, False, False])) == [1.0]


def test_the_last_turn_of_a_conversation_is_what_is_asked_for() -> None:
    mask = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1], dtype=np.bool_)
    prompt, response = last_turn(Sample(0, np.arange(9, dtype=np.int32), mask))
    assert (prompt.tolist(), response.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])


def test_scoring_stops_when_told(model: PreTrainedModel, samples: list[Sample]) -> None:
    with pytest.raises(Stopped):
        Passes(model, 50, lambda: True).losses(samples)


@pytest.mark.parametrize("asked", range(3))
def test_scoring_stops_inside_a_pass(model: PreTrainedModel, samples: list[Sample], asked: int) -> None:
    calls = []

    def should_stop() -> bool:
        calls.append(None)
        return len(calls) > asked

    with pytest.raises(Stopped):
        Passes(model, 5000, should_stop).losses(samples)
    assert len(calls) == asked + 1
