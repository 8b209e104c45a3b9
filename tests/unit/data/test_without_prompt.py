"""A response without its prompt: the template's frame stays, the tokens under the loss are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.data.samples import Sample
from workers.data.tokenisation import ConversationEncoder
from workers.data.without_prompt import PromptFrame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def test_the_frame_of_a_chat_template_is_its_empty_prompt(chatml: PreTrainedTokenizerFast) -> None:
    found = PromptFrame.of(ConversationEncoder(chatml, 512), chatml)
    assert chatml.decode(found.before) == "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n"
    assert chatml.decode(found.after) == "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{{ raise_exception('no') }}",
    ],
    ids=["nothing-around-a-prompt", "refuses-every-conversation"],
)
def test_without_a_frame_there_is_a_token_to_begin_with(chatml: PreTrainedTokenizerFast, template: str) -> None:
    chatml.chat_template = template
    found = PromptFrame.of(ConversationEncoder(chatml, 512), chatml)
    assert len(found.before) + len(found.after) == 1


def frame(before: list[int], after: list[int]) -> PromptFrame:
    return PromptFrame(np.array(before, dtype=np.int32), np.array(after, dtype=np.int32))


def sample(ids: list[int], mask: list[int]) -> Sample:
    return Sample(4, np.array(ids, dtype=np.int32), np.array(mask, dtype=np.bool_))


def test_a_response_in_the_frame_of_an_empty_prompt() -> None:
    alone = frame([1], [8, 9]).alone(sample([1, 5, 6, 8, 9, 20, 21], [0, 0, 0, 0, 0, 1, 1]), 100)
    assert alone.input_ids.tolist() == [1, 8, 9, 20, 21]
    assert alone.loss_mask.tolist() == [False, False, False, True, True]
    assert alone.row == 4


def test_each_response_of_several_has_its_header() -> None:
    alone = frame([1], [9]).alone(sample([1, 5, 9, 20, 6, 9, 21, 22], [0, 0, 0, 1, 0, 0, 1, 1]), 100)
    assert alone.input_ids.tolist() == [1, 9, 20, 9, 21, 22]
    assert alone.loss_mask.tolist() == [False, False, True, False, True, True]


def test_a_first_token_has_no_loss_with_or_without_a_prompt() -> None:
    alone = frame([1], []).alone(sample([20, 21], [1, 1]), 100)
    assert alone.input_ids.tolist() == [1, 20, 21]
    assert alone.loss_mask.tolist() == [False, False, True]


def test_what_would_be_too_long_loses_the_beginning_of_the_frame() -> None:
    alone = frame([1, 2, 3], [9]).alone(sample([5, 9, 20, 21], [0, 0, 1, 1]), 4)
    assert alone.input_ids.tolist() == [3, 9, 20, 21]


@given(
    mask=st.lists(st.booleans(), min_size=2, max_size=20).filter(lambda mask: any(mask[1:])),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    longest=st.integers(2, 40),
)
def test_the_responses_stay_whole_where_they_fit(mask: list[bool], before: int, after: int, longest: int) -> None:
    ids = list(range(100, 100 + len(mask)))
    given_sample = sample(ids, [int(one) for one in mask])
    alone = frame(list(range(max(before, after == 0))), [50] * after).alone(given_sample, longest)
    assert alone.tokens <= longest
    assert alone.loss_tokens >= 1
    wanted = given_sample.input_ids[1:][given_sample.loss_mask[1:]]
    got = alone.input_ids[alone.loss_mask]
    assert got.tolist() == wanted[: len(got)].tolist()
    if longest == 40:
        assert len(got) == len(wanted)
