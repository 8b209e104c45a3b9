"""The ways in which one conversation is spelled: chat templates want calls of tools, contents and tools differently."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spice_rows.conversation import Turn


def spellings(messages: list[Turn], tools: list[Any] | None) -> Iterator[tuple[list[Turn], list[Any] | None]]:
    """A conversation as the row spells it, then as other templates want it."""
    yield messages, tools
    calling = any(message.get("tool_calls") for message in messages)
    wrapped = tools and [
        {"type": "function", "function": tool} if isinstance(tool, dict) and "function" not in tool else tool
        for tool in tools
    ]
    contents = [_same, _content_as_none, _content_as_text] if calling else [_same, _content_as_text]
    arguments = [_same, _arguments_as_objects, _arguments_as_text] if calling else [_same]
    for content, argument, offered in itertools.product(contents, arguments, [tools, wrapped] if tools else [tools]):
        other = [content(argument(message)) for message in messages]
        if other != messages or offered != tools:
            yield other, offered
    if not calling:
        yield [_content_as_parts(message) for message in messages], tools


def _same(turn: Turn) -> Turn:
    return turn


def _content_as_none(turn: Turn) -> Turn:
    return {**turn, "content": None} if turn.get("tool_calls") and not turn.get("content") else turn


def _content_as_text(turn: Turn) -> Turn:
    return {**turn, "content": ""} if turn.get("content") is None else turn


def _content_as_parts(turn: Turn) -> Turn:
    content = turn.get("content")
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn


def _arguments_as_objects(turn: Turn) -> Turn:
    return _with_arguments(turn, lambda given: json.loads(given) if isinstance(given, str) else given)


def _arguments_as_text(turn: Turn) -> Turn:
    return _with_arguments(turn, lambda given: given if isinstance(given, str) else json.dumps(given))


def _with_arguments(turn: Turn, spelled: Callable[[Any], Any]) -> Turn:
    if not turn.get("tool_calls"):
        return turn
    return {**turn, "tool_calls": [_call_with_arguments(call, spelled) for call in turn["tool_calls"]]}


def _call_with_arguments(call: Any, spelled: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _call_with_arguments(call["function"], spelled)}
    if "arguments" not in call:
        return call
    try:
        return {**call, "arguments": spelled(call["arguments"])}
    except ValueError:
        return call
