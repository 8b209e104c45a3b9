"""A picked row as the conversation that its gradient was computed from.

The worker's own reading is `workers.data.conversation`; a test holds this one to it. What the worker rejects is never
picked, so nothing is rejected here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from spice_client.problems import SpiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Message(TypedDict):
    """One turn; `role` is system, user, assistant or tool."""

    role: str
    content: str


class RowNotReadable(SpiceError):
    """A row does not hold what the job's columns say."""

    def __init__(self, columns: Mapping[str, str], cause: Exception) -> None:
        detail = f"it is not as the columns {dict(columns)} say ({type(cause).__name__}: {cause})"
        super().__init__({"title": "A row cannot be read", "detail": detail})


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
}


def to_messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Message]:
    """The conversation of a row, ending with its last response.

    Args:
        row: The row's columns.
        columns: Role to column name, as the job's result says: prompt and response, or instruction, output and perhaps
            input, or messages.

    Raises:
        RowNotReadable: The row does not hold that.
    """
    try:
        if "messages" in columns:
            return _chat(row[columns["messages"]])
        prompt, response = prompt_of(row, columns), row[columns.get("response") or columns["output"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise RowNotReadable(columns, error) from None
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def prompt_of(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The prompt of a single-turn row: its prompt, or its instruction and input with an empty line between."""
    if "prompt" in columns:
        return str(row[columns["prompt"]])
    parts = [row[columns["instruction"]], row.get(columns["input"]) if "input" in columns else None]
    return "\n\n".join(part for part in parts if part)


def is_single_turn(messages: Sequence[Message]) -> bool:
    """Whether the assistant speaks once, at the end."""
    return sum(message["role"] == "assistant" for message in messages) == 1


def alternates(messages: Sequence[Message]) -> bool:
    """Whether user (or tool) and assistant take turns, after an optional system message."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    wanted = ({"user", "tool"}, {"assistant"})
    return len(turns) % 2 == 0 and all(turn["role"] in wanted[place % 2] for place, turn in enumerate(turns))


def _chat(turns: Sequence[Mapping[str, Any]]) -> list[Message]:
    messages = [_message(turn) for turn in turns]
    last = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[: last + 1]


def _message(turn: Mapping[str, Any]) -> Message:
    content = turn["content"] if "content" in turn else turn["value"]
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content)
    return {"role": ROLES[(turn.get("role") or turn["from"]).lower()], "content": content}
