"""A picked row as the conversation that its gradient was computed from, read as the worker reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spice_client.problems import SpiceError
from spice_rows.conversation import REASONING_FIELDS, RESULT_ROLES, Conversation, RowRefused, Turn, Wanted, read_row
from spice_rows.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RowNotReadable(SpiceError):
    """A row does not hold what the job's columns say."""

    def __init__(self, columns: Mapping[str, str], why: str) -> None:
        super().__init__(
            {"title": "A row cannot be read", "detail": f"it is not as the columns {dict(columns)} say ({why})"}
        )


def read(row: Mapping[str, Any], columns: Mapping[str, str], wanted: Wanted) -> Conversation:
    """What a row says.

    Args:
        row: The row's columns.
        columns: Role to column name, as the job's result says.
        wanted: What of it the job learned.

    Raises:
        RowNotReadable: The row does not hold that.
    """
    shape = shape_of(columns)
    if shape is None:
        raise RowNotReadable(columns, "they name no prompt and response, messages, pair or text")
    try:
        return read_row(row, shape, wanted)
    except RowRefused as refused:
        raise RowNotReadable(columns, refused.reason) from None


def plain_turn(turn: Turn) -> Turn:
    """A turn in the roles that trainers know."""
    role = "tool" if turn["role"] in RESULT_ROLES else "system" if turn["role"] == "developer" else turn["role"]
    return {**turn, "role": role}


def is_simple(conversation: Conversation) -> bool:
    """Whether all that a row says are the texts of a user and of one reply, and perhaps a system text."""
    plain = all(turn.keys() == {"role", "content"} for turn in conversation.messages)
    roles = [turn["role"] for turn in conversation.messages]
    return plain and roles in (["user", "assistant"], ["system", "user", "assistant"]) and not conversation.tools


def is_single_reply(conversation: Conversation) -> bool:
    """Whether what is learned is the last turn alone, and all that the assistant says there."""
    return conversation.learned[-1:] == [True] and sum(conversation.learned) == 1


def learns_every_reply(conversation: Conversation) -> bool:
    """Whether every reply is learned, so that a trainer which learns them all learns the same."""
    spoken = [turn["role"] == "assistant" for turn in conversation.messages]
    return conversation.learned == spoken


def alternates(messages: Sequence[Turn]) -> bool:
    """Whether user (or tool) and assistant take turns, after an optional system message."""
    turns = messages[1:] if messages and messages[0]["role"] in ("system", "developer") else messages
    wanted = ({"user", *RESULT_ROLES}, {"assistant"})
    return len(turns) % 2 == 0 and all(turn["role"] in wanted[place % 2] for place, turn in enumerate(turns))


def with_thoughts(turn: Turn) -> str:
    """What a turn says, with what it thinks before it in the tags that reasoning models use."""
    thought = next((turn[name] for name in REASONING_FIELDS if isinstance(turn.get(name), str) and turn[name]), None)
    said = turn.get("content") or ""
    return str(said) if thought is None else f"<think>\n{thought}\n</think>\n\n{said}"
