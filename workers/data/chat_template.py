"""Render conversations with the model's own chat template, and find the responses in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.data.rejection import Reason
from workers.data.template_environment import FIXED_DATE
from workers.data.template_server import SERVER, TemplateLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    It runs in a process of its own, in a sandbox, with limits of time and memory (`workers.data.template_process`), and
    sees nothing but roles, contents and special tokens.

    Attributes:
        source: The Jinja source that is rendered; together with the tokenizer it decides every sample.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: TemplateLimits | None = None) -> None:
        """Take the tokenizer's template, or `PLAIN_TEMPLATE` if it has none.

        Raises:
            DatasetError: ``chat_template_broken`` if it is not valid Jinja.
        """
        self.source: str = tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        self._limits = limits or TemplateLimits()
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        self._template: dict[str, Any] = {
            "source": self.source,
            "variables": {
                "date_string": FIXED_DATE,
                "eos_token": "",
                "plain_bos": _bos_that_is_added(tokenizer),
                **{name: _plain(token) for name, token in tokenizer.special_tokens_map.items()},
            },
            "control_tokens": sorted(added | set(tokenizer.all_special_tokens)),
            "most_characters": self._limits.text_bytes,
        }
        SERVER.check(self._template, self._limits)

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered | Reason]:
        """Render conversations and locate their responses.

        Returns:
            For each its text; TEMPLATE_REFUSED if the template raises; TEMPLATE_NOT_PREFIX_STABLE if the responses
            can't be found in it; ROW_TOO_LONG if it is longer than the limit.

        Raises:
            DatasetError: ``chat_template_broken`` if it takes too long or too much memory.
        """
        plain = [[{"role": turn["role"], "content": turn["content"]} for turn in turns] for turns in conversations]
        return [_rendered(answer) for answer in SERVER.render(self._template, plain, self._limits)]


def _rendered(answer: dict[str, Any]) -> Rendered | Reason:
    if "reason" in answer:
        return Reason(answer["reason"])
    return Rendered(answer["text"], tuple((start, end) for start, end in answer["responses"]))


def _plain(token: object) -> object:
    """A special token, or several, as text."""
    return [str(one) for one in token] if isinstance(token, list | tuple) else str(token)


def _bos_that_is_added(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token if this tokenizer puts it before every text, else nothing."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a", add_special_tokens=True)["input_ids"]
    return str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
