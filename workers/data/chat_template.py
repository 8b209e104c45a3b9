"""Render conversations with the model's own chat template, and find the responses in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.data.errors import DatasetError
from workers.data.rejection import Reason, Refusal
from workers.data.template_environment import FIXED_DATE
from workers.data.template_server import SERVER, TemplateLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from workers.data.conversation import Conversation

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
WITH_TOOLS = "tool_use"
"""The name of the template that a tokenizer with several has for conversations with tools."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the model reads it.

    Attributes:
        text: The whole text, special tokens spelled out.
        responses: [start, end) in characters of each response with its end-of-turn token, in order.
        ignored: Names of what the row says and the template leaves out.
    """

    text: str
    responses: tuple[tuple[int, int], ...]
    ignored: tuple[str, ...] = ()


class ChatTemplate:
    """The template of one tokenizer, or the one of several that the request or the row asks for.

    It runs in a process of its own, in a sandbox, with limits of time and memory (`workers.data.template_process`), and
    sees nothing but conversations and special tokens.

    Attributes:
        source: The Jinja source that is rendered; together with the tokenizer it decides every sample.
        source_with_tools: That of rows with tools, where the tokenizer has one of its own for them.
        bos: The beginning-of-sequence token if this tokenizer puts it before every text, else nothing.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, limits: TemplateLimits | None = None, name: str | None = None
    ) -> None:
        """Take the tokenizer's template, or `PLAIN_TEMPLATE` if it has none.

        Args:
            tokenizer: The model's.
            limits: What the template may take.
            name: Which of several; left out: ``default``, and ``tool_use`` for rows with tools.

        Raises:
            DatasetError: ``chat_template_broken`` if it is not valid Jinja, ``chat_template_unknown`` if there are
                several and none is named.
        """
        self.source, self.source_with_tools = _sources(tokenizer.chat_template, name)
        self._limits = limits or TemplateLimits()
        self.bos = _bos_that_is_added(tokenizer)
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        given: dict[str, Any] = {
            "variables": {
                "date_string": FIXED_DATE,
                "eos_token": "",
                "plain_bos": self.bos,
                **{name: _plain(token) for name, token in tokenizer.special_tokens_map.items()},
            },
            "control_tokens": sorted(added | set(tokenizer.all_special_tokens)),
            "most_characters": self._limits.text_bytes,
        }
        self._template = {"source": self.source, **given}
        self._with_tools = {"source": self.source_with_tools, **given}
        for template in (self._template, self._with_tools):
            SERVER.check(template, self._limits)

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered | Refusal]:
        """Render conversations and locate their responses.

        Returns:
            For each its text; TEMPLATE_REFUSED if the template raises; TEMPLATE_NOT_PREFIX_STABLE if the responses
            can't be found in it; ROW_TOO_LONG if it is longer than the limit.

        Raises:
            DatasetError: ``chat_template_broken`` if it takes too long or too much memory.
        """
        rendered: list[Rendered | Refusal | None] = [None] * len(conversations)
        for template, tools in ((self._template, False), (self._with_tools, True)):
            places = [place for place, one in enumerate(conversations) if bool(one.tools) is tools]
            answers = SERVER.render(template, [conversations[place].document() for place in places], self._limits)
            for place, answer in zip(places, answers, strict=True):
                rendered[place] = _rendered(answer)
        return [one for one in rendered if one is not None]


def _sources(templates: str | dict[str, str] | None, name: str | None) -> tuple[str, str]:
    """The template, and that of rows with tools."""
    if isinstance(templates, dict):
        chosen = name or ("default" if "default" in templates else None)
        if chosen in templates:
            source = templates[chosen]
            return source, source if name else templates.get(WITH_TOOLS, source)
    elif name is None or (templates and name == "default"):
        return (templates or PLAIN_TEMPLATE,) * 2
    choices = ", ".join(map(repr, sorted(templates))) if isinstance(templates, dict) else ""
    raise DatasetError(
        "chat_template_unknown",
        f"model.chat_template is {name!r}, and the tokenizer has {choices or 'no templates with names'}"
        + (": name one of those" if choices else ": leave it out")
        if name is not None
        else f"the tokenizer has several chat templates and none is its default: set model.chat_template to one of "
        f"{choices}",
    )


def _rendered(answer: dict[str, Any]) -> Rendered | Refusal:
    if "reason" in answer:
        return Refusal(Reason(answer["reason"]), answer.get("said", ""))
    spans = tuple((start, end) for start, end in answer["responses"])
    return Rendered(answer["text"], spans, tuple(answer["ignored"]))


def _plain(token: object) -> object:
    """A special token, or several, as text."""
    return [str(one) for one in token] if isinstance(token, list | tuple) else str(token)


def _bos_that_is_added(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token if this tokenizer puts it before every text, else nothing."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a", add_special_tokens=True)["input_ids"]
    return str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
