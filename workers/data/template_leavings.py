"""Conversations without one thing that they say: a template that writes the same of them leaves that thing out.

What is said in texts, and which function is called, have marks (`workers.data.template_marks`); this is for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spice_rows.conversation import REASONING_FIELDS, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN_FIELDS = frozenset({"role", "content", "tool_call_id", "id"})
"""Fields of a turn whose absence in a template loses nothing that is said."""
_OF_A_CALL = frozenset({"id", "type", "index", "function", "name"})
"""Fields of a call that are told from marks, or say nothing of their own."""


def leavings(messages: list[Turn]) -> Iterator[tuple[str, list[Turn]]]:
    """For each thing that the turns of a role say: its name, and the conversation without it.

    A thing is a field of a turn beside its text, a field of a call (`tool_calls.NAME`), or a content that is neither
    text nor parts, which goes by its turn's role.
    """
    marked = PLAIN_FIELDS | {"tool_calls", *REASONING_FIELDS}
    for role, name in sorted({(turn["role"], name) for turn in messages for name in turn.keys() - marked}):
        yield name, _changed(messages, lambda turn: turn["role"] == role, lambda turn: _less(turn, name))  # noqa: B023
    for name in sorted({name for turn in messages for call in _calls(turn) for name in _said_by(call)}):
        yield f"tool_calls.{name}", _changed(messages, _calls, lambda turn: _calling_without(turn, name))  # noqa: B023
    for role in sorted({turn["role"] for turn in messages if isinstance(turn.get("content"), dict)}):
        yield role, _changed(messages, lambda turn: turn["role"] == role, lambda turn: {**turn, "content": ""})  # noqa: B023


def _changed(messages: list[Turn], which: Callable[[Turn], object], change: Callable[[Turn], Turn]) -> list[Turn]:
    return [change(turn) if which(turn) else turn for turn in messages]


def _less(value: Turn, field: str) -> Turn:
    return {name: item for name, item in value.items() if name != field}


def _calls(turn: Turn) -> list[Turn]:
    return [call for call in turn.get("tool_calls") or () if isinstance(call, dict)]


def _said_by(call: Turn) -> set[str]:
    function = call.get("function")
    inner = _said_by(function) if isinstance(function, dict) else set()
    return inner | {name for name, value in call.items() if name not in _OF_A_CALL and value not in (None, "", {}, [])}


def _calling_without(turn: Turn, field: str) -> Turn:
    return {**turn, "tool_calls": [_less_of_a_call(call, field) for call in turn["tool_calls"]]}


def _less_of_a_call(call: Any, field: str) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(call, dict):
        return call
    function = call.get("function")
    kept = _less(call, field)
    return {**kept, "function": _less(function, field)} if isinstance(function, dict) else kept
