"""Render conversations with a chat template and find the responses in the text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from workers.data.template_environment import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Message = dict[str, str]

_HAS_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TextTooLong(Exception):
    """What a template wrote is longer than the limit."""


class NotLocated(Exception):
    """A template rewrites conversations so that their responses can't be found."""


class Renderer:
    """One template, with what it may see besides a conversation."""

    def __init__(
        self, source: str, variables: dict[str, Any], control_tokens: Sequence[str], most_characters: int
    ) -> None:
        """Compile it.

        Args:
            source: Jinja.
            variables: Names that the template may use.
            control_tokens: Tokens that may end a turn.
            most_characters: The longest text that it may write.

        Raises:
            jinja2.TemplateSyntaxError: It is not valid Jinja.
        """
        self._template = compiled(source)
        self._marks_responses = _HAS_MARKERS.search(source) is not None
        self._variables = variables
        self._control_tokens = tuple(control_tokens)
        self._most_characters = most_characters

    def render(self, messages: list[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and [start, end) in characters of each response, in order.

        A template with ``{% generation %}`` markers says itself where they are. Otherwise a response begins where
        the text of the turns before it and the generation prompt ends, and it ends where the text of the turns up
        to it ends, less white space after the end-of-turn token. Where those texts do not begin the whole one (some
        templates leave the reasoning out of all turns but the last), the responses are found by rendering marks
        in their place, and the end-of-turn token that follows is added.

        Raises:
            NotLocated: Neither way leads to the responses.
            TextTooLong: The text, or one that is needed on the way, is longer than the limit.
            Exception: Whatever the template raises.
        """
        if self._marks_responses:
            blocks: list[str] = []
            with self._template.environment.spans_of(blocks) as spans:  # type: ignore[attr-defined]
                text = self._text(messages, blocks=blocks)
            return text, spans
        text = self._text(messages)
        for locate in (self._locate_by_prefixes, self._locate_by_marks):
            try:
                return text, list(locate(messages, text))
            except TextTooLong:
                raise
            except Exception:  # noqa: BLE001, S112 - a template may refuse a part of what it takes as a whole
                continue
        raise NotLocated

    def _locate_by_prefixes(self, messages: list[Message], text: str) -> Iterator[tuple[int, int]]:
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._text(messages[:i], add_generation_prompt=True)
            through = text if i + 1 == len(messages) else self._text(messages[: i + 1])
            if not (text.startswith(before) and text.startswith(through) and len(before) < len(through)):
                raise NotLocated
            yield len(before), self._end_of_turn(text, len(through))

    def _end_of_turn(self, text: str, end: int) -> int:
        """Leave out white space after an end-of-turn token: nobody generates beyond that token."""
        stripped = text[:end].rstrip()
        return len(stripped) if stripped.endswith(self._control_tokens) else end

    def _locate_by_marks(self, messages: list[Message], text: str) -> Iterator[tuple[int, int]]:
        marked = [
            {"role": "assistant", "content": _mark(i)} if message["role"] == "assistant" else message
            for i, message in enumerate(messages)
        ]
        between, contents = _split_at_marks(self._text(marked), messages)
        if not text.startswith(between[0]):
            raise NotLocated
        at = len(between[0])
        for content, after in zip(contents, between[1:], strict=True):
            # Templates strip contents, or do not; the text that follows tells which.
            found = next((c for c in (content, content.strip()) if text.startswith(c + after, at)), None)
            if found is None:
                raise NotLocated
            end = at + len(found)
            yield at, end + self._leading_control_token(after)
            at = end + len(after)
        if at != len(text):
            raise NotLocated

    def _leading_control_token(self, text: str) -> int:
        """Characters of the end-of-turn token that the text begins with, after white space; 0 without one."""
        stripped = text.lstrip()
        longest = max((len(token) for token in self._control_tokens if stripped.startswith(token)), default=0)
        return len(text) - len(stripped) + longest if longest else 0

    def _text(
        self, messages: list[Message], *, add_generation_prompt: bool = False, blocks: list[str] | None = None
    ) -> str:
        blocks = [] if blocks is None else blocks
        size = 0
        # Each message is copied: what a template sees of one rendering must not reach the next.
        seen = [dict(message) for message in messages]
        for block in self._template.generate(
            messages=seen,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._variables,
        ):
            size += len(block)
            if size > self._most_characters:
                raise TextTooLong
            blocks.append(block)
        return "".join(blocks)


def _mark(i: int) -> str:
    """A text for turn i that nobody writes: characters of the private use area."""
    return f"\ue000{i}\ue001"


def _split_at_marks(rendered: str, messages: list[Message]) -> tuple[list[str], list[str]]:
    """The texts around the marks, one more than there are responses, and the responses' own texts."""
    between, contents = [], []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, found, rendered = rendered.partition(_mark(i))
            if not found:
                raise NotLocated
            between.append(before)
            contents.append(message["content"])
    return [*between, rendered], contents
