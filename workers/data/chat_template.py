"""Render conversations with the model's own chat template, and find the responses in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from workers.data.errors import DatasetError
from workers.data.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from workers.data.conversation import Message

PLAIN_TEMPLATE = (
    "{{ plain_bos }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "### Response:\n{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% elif message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'tool' %}### Input:\n{{ message['content'] }}"
    "{% else %}### Instruction:\n{{ message['content'] }}{% endif %}"
    "{% if not loop.last %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}"
)
"""For models without a chat template: the Alpaca headings, the response closed by the end-of-sequence token."""

# Some templates put today's date into the system prompt; samples, and with them the whole selection, would then
# depend on the day. This is the date that Llama's template itself falls back to.
FIXED_DATE = "26 Jul 2024"
_FIX_THE_CLOCK = f"{{%- macro strftime_now(format) -%}}{FIXED_DATE}{{%- endmacro -%}}"

_HAS_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the model reads it.

    Attributes:
        text: The whole text, special tokens spelled out.
        responses: [start, end) in characters of each response with its end-of-turn token, in order.
    """

    text: str
    responses: tuple[tuple[int, int], ...]


class ChatTemplate:
    """The template of one tokenizer.

    Templates run in transformers' sandbox (Jinja's ImmutableSandboxedEnvironment: no attribute that begins with an
    underscore, no change of what is passed in), and see nothing but roles, contents and special tokens.

    Attributes:
        source: The Jinja source that is rendered; together with the tokenizer it decides every sample.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take the tokenizer's template, or `PLAIN_TEMPLATE` if it has none.

        Raises:
            DatasetError: ``chat_template_broken`` if it is not valid Jinja.
        """
        own = tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        self.source = _FIX_THE_CLOCK + own if "strftime_now" in own else own
        self._marks_responses = _HAS_MARKERS.search(own) is not None
        self._variables = {
            "date_string": FIXED_DATE,
            "eos_token": "",
            "plain_bos": _bos_that_is_added(tokenizer),
            **tokenizer.special_tokens_map,
        }
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        self._control_tokens = tuple(sorted(added | set(tokenizer.all_special_tokens)))
        try:
            self._render([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except jinja2.TemplateSyntaxError as error:
            raise DatasetError(
                "chat_template_broken",
                f"the model's chat template is not valid Jinja ({error}): correct the model's files",
            ) from error
        except _TEMPLATE_ERRORS:
            pass  # a template may refuse any conversation; each row is told so

    def render(self, messages: Sequence[Message]) -> Rendered | Reason:
        """Render a conversation and locate its responses.

        A template with ``{% generation %}`` markers says itself where they are. Otherwise a response begins where
        the text of the turns before it and the generation prompt ends, and it ends where the text of the turns up
        to it ends, less white space after the end-of-turn token. Where those texts do not begin the whole one (some
        templates leave the reasoning out of all turns but the last), the responses are found by rendering marks
        in their place, and the end-of-turn token that follows is added.

        Returns:
            The text; TEMPLATE_REFUSED if the template raises; TEMPLATE_NOT_PREFIX_STABLE if neither way leads to
            the responses.
        """
        try:
            if self._marks_responses:
                return Rendered(*self._run(messages, return_assistant_tokens_mask=True))
            text = self._render(messages)
        except _TEMPLATE_ERRORS:
            return Reason.TEMPLATE_REFUSED
        for locate in (self._locate_by_prefixes, self._locate_by_marks):
            try:
                return Rendered(text, tuple(locate(messages, text)))
            except (_NotLocated, *_TEMPLATE_ERRORS):
                continue
        return Reason.TEMPLATE_NOT_PREFIX_STABLE

    def _locate_by_prefixes(self, messages: Sequence[Message], text: str) -> Iterator[tuple[int, int]]:
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:i], add_generation_prompt=True)
            through = text if i + 1 == len(messages) else self._render(messages[: i + 1])
            if not (text.startswith(before) and text.startswith(through) and len(before) < len(through)):
                raise _NotLocated
            yield len(before), self._end_of_turn(text, len(through))

    def _end_of_turn(self, text: str, end: int) -> int:
        """Leave out white space after an end-of-turn token: nobody generates beyond that token."""
        stripped = text[:end].rstrip()
        return len(stripped) if stripped.endswith(self._control_tokens) else end

    def _locate_by_marks(self, messages: Sequence[Message], text: str) -> Iterator[tuple[int, int]]:
        marked: list[Message] = [
            {"role": "assistant", "content": _mark(i)} if message["role"] == "assistant" else message
            for i, message in enumerate(messages)
        ]
        between, contents = _split_at_marks(self._render(marked), messages)
        if not text.startswith(between[0]):
            raise _NotLocated
        at = len(between[0])
        for content, after in zip(contents, between[1:], strict=True):
            # Templates strip contents, or do not; the text that follows tells which.
            found = next((c for c in (content, content.strip()) if text.startswith(c + after, at)), None)
            if found is None:
                raise _NotLocated
            end = at + len(found)
            yield at, end + self._leading_control_token(after)
            at = end + len(after)
        if at != len(text):
            raise _NotLocated

    def _leading_control_token(self, text: str) -> int:
        """Characters of the end-of-turn token that the text begins with, after white space; 0 without one."""
        stripped = text.lstrip()
        longest = max((len(token) for token in self._control_tokens if stripped.startswith(token)), default=0)
        return len(text) - len(stripped) + longest if longest else 0

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        return self._run(messages, add_generation_prompt=add_generation_prompt)[0]

    def _run(self, messages: Sequence[Message], **options: bool) -> tuple[str, tuple[tuple[int, int], ...]]:
        # Declared to return a string, it returns the texts and the marked spans of each conversation.
        run = cast("Callable[..., tuple[list[str], list[list[tuple[int, int]]]]]", render_jinja_template)
        texts, spans = run([list(messages)], chat_template=self.source, **options, **self._variables)
        return texts[0], tuple(spans[0]) if spans else ()


class _NotLocated(Exception):
    pass


def _mark(i: int) -> str:
    """A text for turn i that nobody writes: characters of the private use area."""
    return f"\ue000{i}\ue001"


def _split_at_marks(rendered: str, messages: Sequence[Message]) -> tuple[list[str], list[str]]:
    """The texts around the marks, one more than there are responses, and the responses' own texts."""
    between, contents = [], []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, found, rendered = rendered.partition(_mark(i))
            if not found:
                raise _NotLocated
            between.append(before)
            contents.append(message["content"])
    return [*between, rendered], contents


_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError)


def _bos_that_is_added(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token if this tokenizer puts it before every text, else nothing."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a", add_special_tokens=True)["input_ids"]
    return str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
