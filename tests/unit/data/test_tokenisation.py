"""Tokens and loss masks: what carries loss, decoded, is the responses with their end-of-turn tokens and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from workers.data.chat_template import Rendered
from workers.data.errors import DatasetError
from workers.data.rejection import Reason, Refusal
from workers.data.tokenisation import ConversationEncoder, Encoded, response_mask

from .conftest import CHATML, conversation

if TYPE_CHECKING:
    from spice_rows.conversation import Turn

SYSTEM = "<|im_start|>system\nYou are helpful.<|im_end|>\n"
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
)


def chat(*texts: str) -> list[Turn]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[Turn], max_length: int = 512) -> Encoded | Refusal:
    return ConversationEncoder(tokenizer, max_length).encode([conversation(messages)])[0]


def reason(one: Encoded | Refusal) -> Reason | None:
    return one.reason if isinstance(one, Refusal) else None


def parts(tokenizer: PreTrainedTokenizerFast, one: Encoded | Refusal) -> tuple[str, list[str]]:
    """The whole text, and the text of each run of tokens that carry loss."""
    assert isinstance(one, Encoded), one
    edges = np.flatnonzero(np.diff(np.concatenate([[False], one.loss_mask, [False]])))
    runs = [tokenizer.decode(one.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return tokenizer.decode(one.input_ids), runs


def test_a_single_turn(chatml: PreTrainedTokenizerFast) -> None:
    text, responses = parts(chatml, encode(chatml, chat("the cat?", "sat on the mat")))
    assert text == (f"{SYSTEM}<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\nsat on the mat<|im_end|>\n")
    assert responses == ["sat on the mat<|im_end|>"]


def test_every_assistant_turn_with_words_carries_loss(chatml: PreTrainedTokenizerFast) -> None:
    turns = chat("a", "the cat", "b", "", "c", "the rat")
    _, responses = parts(chatml, encode(chatml, turns))
    assert responses == ["the cat<|im_end|>", "the rat<|im_end|>"]  # of a turn without words, nothing is learned


def test_markers_in_the_template_say_where_responses_are(chatml: PreTrainedTokenizerFast) -> None:
    chatml.chat_template = MARKED
    text, responses = parts(chatml, encode(chatml, chat("a", "the cat", "b", "the rat")))
    assert responses == ["the cat<|im_end|>", "the rat<|im_end|>"]
    assert text.startswith("<|im_start|>user\na")


words = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: "<" not in text)


@hypothesis_settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=3))
@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_the_mask_is_the_responses_whatever_the_text(
    chatml: PreTrainedTokenizerFast, turns: list[tuple[str, str]], template: str
) -> None:
    chatml.chat_template = template
    one = encode(chatml, chat(*(text for turn in turns for text in turn)), max_length=10_000)
    text, responses = parts(chatml, one)
    # White space that begins a response may join the header's line end in one token; it is the header's then.
    for response, (_, answer) in zip(responses, turns, strict=True):
        assert f"\n{answer}<|im_end|>".endswith(response)
        assert response.strip() == f"{answer}<|im_end|>".strip()
    assert all(prompt in text for prompt, _ in turns)


def test_a_sample_does_not_depend_on_its_neighbours(chatml: PreTrainedTokenizerFast) -> None:
    encoder = ConversationEncoder(chatml, 64)
    conversations = [conversation(chat("the cat", "sat " * n)) for n in range(1, 30)]
    together = encoder.encode(conversations)
    for same, one in zip(conversations, together, strict=True):
        alone = encoder.encode([same])[0]
        assert isinstance(one, Encoded)
        assert isinstance(alone, Encoded)
        np.testing.assert_array_equal(alone.input_ids, one.input_ids)
        np.testing.assert_array_equal(alone.loss_mask, one.loss_mask)


def test_without_a_template_the_alpaca_headings_are_used(plain: PreTrainedTokenizerFast) -> None:
    turns: list[Turn] = [{"role": "system", "content": "Be short."}, *chat("a", "the cat", "b", "the rat")]
    text, responses = parts(plain, encode(plain, turns))
    assert text == (
        "Be short.\n\n### Instruction:\na\n\n### Response:\nthe cat</s>\n\n"
        "### Instruction:\nb\n\n### Response:\nthe rat</s>"
    )
    assert responses == ["the cat</s>", "the rat</s>"]


def adding_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bos = backend.token_to_id("<s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def test_the_first_token_is_never_doubled(plain: PreTrainedTokenizerFast) -> None:
    tokenizer = adding_bos(plain)
    for template in (None, "{{ bos_token }}" + MARKED.replace("<|im_end|>", "</s>")):
        tokenizer.chat_template = template
        one = encode(tokenizer, chat("a", "the cat"))
        assert isinstance(one, Encoded)
        assert list(one.input_ids[:3]).count(tokenizer.bos_token_id) == 1
        assert one.input_ids[0] == tokenizer.bos_token_id
        assert not one.loss_mask[0]


class TestLength:
    def test_the_right_is_cut_and_the_loss_counted(self, chatml: PreTrainedTokenizerFast) -> None:
        whole = encode(chatml, chat("the cat", "sat on the mat " * 10))
        assert isinstance(whole, Encoded)
        start = int(np.argmax(whole.loss_mask))
        end = int(np.flatnonzero(whole.loss_mask)[-1]) + 1
        for length in range(start + 1, end):
            one = encode(chatml, chat("the cat", "sat on the mat " * 10), length)
            assert isinstance(one, Encoded)
            assert (len(one.input_ids), one.truncated) == (length, True)
            np.testing.assert_array_equal(one.input_ids, whole.input_ids[:length])
        unhurt = encode(chatml, chat("the cat", "sat on the mat " * 10), end)  # only the template's line end is cut
        assert isinstance(unhurt, Encoded)
        assert not unhurt.truncated
        for length in (start, start - 1, 2):
            assert reason(encode(chatml, chat("the cat", "sat on the mat " * 10), length)) is Reason.RESPONSE_TRUNCATED

    def test_a_length_without_room_for_a_response_is_a_mistake(self, chatml: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ValueError, match="at least 2 tokens"):
            ConversationEncoder(chatml, 1)


class TestTemplates:
    def test_a_template_that_rewrites_what_a_response_says_is_refused_row_by_row(
        self, chatml: PreTrainedTokenizerFast
    ) -> None:
        chatml.chat_template = "{{ messages | length }}" + CHATML.replace("['content']", "['content'] | upper")
        assert reason(encode(chatml, chat("a", "b"))) is Reason.TEMPLATE_NOT_PREFIX_STABLE
        _, responses = parts(chatml, encode(chatml, chat("A", "B")))  # nothing is rewritten here
        assert responses == ["B<|im_end|>"]

    @pytest.mark.parametrize("content", ["the cat", " the cat\n"])
    def test_a_template_that_drops_the_reasoning_of_earlier_turns(
        self, chatml: PreTrainedTokenizerFast, content: str
    ) -> None:
        chatml.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}{{ '\n' }}"
            "{% if loop.last and m['role'] == 'assistant' %}<think>{{ '\n\n' }}</think>{{ '\n\n' }}{% endif %}"
            "{{ m['content'] | trim }}<|im_end|>{{ '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
        )
        text, responses = parts(chatml, encode(chatml, chat("a", content, "b", "the rat")))
        assert responses == [f"{content.strip()}<|im_end|>", "the rat<|im_end|>"]
        assert text.count("</think>") == 1

    def test_a_generation_prompt_that_the_full_text_lacks(self, chatml: PreTrainedTokenizerFast) -> None:
        chatml.chat_template = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
        _, responses = parts(chatml, encode(chatml, chat("a", "the cat", "b", "the rat")))
        assert responses == ["the cat<|im_end|>", "the rat<|im_end|>"]

    def test_a_conversation_that_begins_with_the_response(self, chatml: PreTrainedTokenizerFast) -> None:
        assert "messages[0]" in CHATML  # which raises where there are no turns before the response
        _, responses = parts(chatml, encode(chatml, chat("", "the cat")[1:]))
        assert responses == ["the cat<|im_end|>"]

    @pytest.mark.parametrize("turns", [chat("a", "b")[1:], [*chat("a", "b"), *chat("a", "b")[1:]]])
    def test_a_template_that_raises_refuses_the_row(self, chatml: PreTrainedTokenizerFast, turns: list[Turn]) -> None:
        chatml.chat_template = (
            "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
        assert reason(encode(chatml, turns)) is Reason.TEMPLATE_REFUSED
        _, responses = parts(chatml, encode(chatml, chat("a", "the cat")))
        assert responses == [" the cat"]  # without an end-of-turn token a reply is its own words

    def test_the_date_does_not_enter_the_samples(self, chatml: PreTrainedTokenizerFast) -> None:
        chatml.chat_template = (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
            "Today is {{ date_string }}, {{ strftime_now('%Y') }}.\n" + CHATML
        )
        text, _ = parts(chatml, encode(chatml, chat("a", "b")))
        assert text.startswith("Today is 26 Jul 2024, 2024.\n")

    def test_a_template_cannot_reach_python(self, chatml: PreTrainedTokenizerFast) -> None:
        chatml.chat_template = "{{ messages.__class__.__mro__ }}" + CHATML
        assert reason(encode(chatml, chat("a", "b"))) is Reason.TEMPLATE_REFUSED

    def test_a_template_that_is_no_jinja_fails_the_job(self, chatml: PreTrainedTokenizerFast) -> None:
        chatml.chat_template = "{% for %}"
        with pytest.raises(DatasetError, match="not valid Jinja"):
            ConversationEncoder(chatml, 64)

    def test_jinja_in_the_data_is_text(self, chatml: PreTrainedTokenizerFast) -> None:
        text, _ = parts(chatml, encode(chatml, chat("{{ 7 * 7 }}{% if %}", "b")))
        assert "{{ 7 * 7 }}{% if %}" in text


def test_a_tokenizer_whose_offsets_leave_out_white_space(backend: Tokenizer) -> None:
    trimmed = Tokenizer.from_str(backend.to_str())
    trimmed.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trimmed, eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML
    _, responses = parts(tokenizer, encode(tokenizer, chat("the cat", "sat on the mat")))
    assert responses == ["sat on the mat<|im_end|>"]


def test_a_sentencepiece_like_tokenizer() -> None:
    vocabulary = {"<unk>": 0, "</s>": 1, "▁": 2, **{chr(c): c - 29 for c in range(32, 127)}, "\n": 99}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
    )
    _, responses = parts(tokenizer, encode(tokenizer, chat("hi there", "good day")))
    assert [response.lstrip() for response in responses] == ["good day</s>"]


def test_a_slow_tokenizer_is_refused(chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", property(lambda _: False))
    with pytest.raises(DatasetError, match=r"tokenizer\.json"):
        ConversationEncoder(chatml, 64)


def test_the_fingerprint_follows_what_decides_the_tokens(
    chatml: PreTrainedTokenizerFast, plain: PreTrainedTokenizerFast
) -> None:
    first = ConversationEncoder(chatml, 64).fingerprint()
    chatml(["left behind"], padding="max_length", truncation=True, max_length=4) if chatml.pad_token else chatml(
        ["left behind"], truncation=True, max_length=4
    )
    assert ConversationEncoder(chatml, 64).fingerprint() == first
    others = [ConversationEncoder(chatml, 65), ConversationEncoder(plain, 64)]
    chatml.chat_template = MARKED
    others.append(ConversationEncoder(chatml, 64))
    assert len({first, *(encoder.fingerprint() for encoder in others)}) == 4


def test_tokens_at_the_edges_of_a_response() -> None:
    text = "ask:\n sat. "
    offsets = np.array([[0, 4], [4, 5], [5, 5], [5, 6], [6, 9], [9, 9], [9, 11]])
    #          ask:  line end  trimmed  space  sat  trimmed  after
    rendered = Rendered(text, ((5, 9),))
    assert response_mask(offsets, rendered).tolist() == [False, False, False, True, True, False, False]
    joined = np.array([[0, 4], [4, 6], [6, 9]])
    assert response_mask(joined, rendered).tolist() == [False, False, True]
    joined = np.array([[0, 4], [4, 9]])
    assert response_mask(joined, rendered).tolist() == [False, True]
    assert response_mask(np.zeros((0, 2), dtype=np.int64), rendered).shape == (0,)


def test_a_response_of_one_word_that_joins_the_header_is_not_lost(chatml: PreTrainedTokenizerFast) -> None:
    chatml.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    _, responses = parts(chatml, encode(chatml, chat("a", "the")))
    assert responses == [" the"]
