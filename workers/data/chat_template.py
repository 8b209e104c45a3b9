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
    from collections.abc import Callable, Sequence

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
        to it ends, less white space after the end-of-turn token.

        Returns:
            The text; or TEMPLATE_REFUSED, or TEMPLATE_NOT_PREFIX_STABLE if those texts do not begin the whole one.
        """
        try:
            if self._marks_responses:
                text, spans = self._render_marked(messages)
            else:
                text = self._render(messages)
                spans = self._locate(messages, text)
        except _TEMPLATE_ERRORS:
            return Reason.TEMPLATE_REFUSED
        except _NotPrefix:
            return Reason.TEMPLATE_NOT_PREFIX_STABLE
        return Rendered(text, tuple(spans))

    def _locate(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:i], add_generation_prompt=True)
            through = text if i + 1 == len(messages) else self._render(messages[: i + 1])
            if not (text.startswith(before) and text.startswith(through) and len(before) < len(through)):
                raise _NotPrefix
            spans.append((len(before), self._end_of_turn(text, len(through))))
        return spans

    def _end_of_turn(self, text: str, end: int) -> int:
        """Leave out white space after an end-of-turn token: nobody generates beyond that token."""
        stripped = text[:end].rstrip()
        return len(stripped) if stripped.endswith(self._control_tokens) else end

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        return self._run(messages, add_generation_prompt=add_generation_prompt)[0]

    def _render_marked(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        return self._run(messages, return_assistant_tokens_mask=True)

    def _run(self, messages: Sequence[Message], **options: bool) -> tuple[str, list[tuple[int, int]]]:
        # Declared to return a string, it returns the texts and the marked spans of each conversation.
        run = cast("Callable[..., tuple[list[str], list[list[tuple[int, int]]]]]", render_jinja_template)
        texts, spans = run([list(messages)], chat_template=self.source, **options, **self._variables)
        return texts[0], spans[0] if spans else []


class _NotPrefix(Exception):
    pass


_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError)


def _bos_that_is_added(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token if this tokenizer puts it before every text, else nothing."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a", add_special_tokens=True)["input_ids"]
    return str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
