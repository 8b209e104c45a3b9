"""Turn a row into the turns of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from workers.data.rejection import Reason
from workers.data.shapes import ShapeName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.data.shapes import Shape


class Message(TypedDict):
    """One turn. ``role`` is system, user, assistant or tool."""

    role: str
    content: str


_ROLE_NAMES = {
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


def to_messages(values: Mapping[str, Any], shape: Shape) -> list[Message] | Reason:
    """The conversation of a row, ending with its last response.

    Args:
        values: The row's columns.
        shape: Where to look, from `workers.data.shapes.recognise`.

    Returns:
        At least one message, the last of which is the assistant's, at least one response not blank; or the reason
        why there is none. An empty prompt is fine: some datasets are responses alone.
    """
    if shape.name is ShapeName.MESSAGES:
        messages = _chat(values.get(shape.columns["messages"]))
    else:
        messages = _single_turn(values, shape)
    if isinstance(messages, Reason):
        return messages
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    # What follows the last response cannot change its loss.
    kept = messages[: last + 1]
    if not any(message["role"] == "assistant" and message["content"].strip() for message in kept):
        return Reason.EMPTY_RESPONSE
    return kept if all(is_unicode(message["content"]) for message in kept) else Reason.INVALID_UTF8


def _single_turn(values: Mapping[str, Any], shape: Shape) -> list[Message] | Reason:
    texts: dict[str, str] = {}
    for role, column in shape.columns.items():
        value = values.get(column)
        if value is None and role != "input":
            return Reason.MISSING_VALUE
        if value is not None and not isinstance(value, str):
            return Reason.WRONG_TYPE
        texts[role] = value or ""
    if shape.name is ShapeName.ALPACA:
        prompt = "\n\n".join(text for text in (texts["instruction"], texts.get("input", "")) if text)
        response = texts["output"]
    else:
        prompt, response = texts["prompt"], texts["response"]
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _chat(turns: object) -> list[Message] | Reason:
    if turns is None:
        return Reason.MISSING_VALUE
    if not isinstance(turns, list):
        return Reason.WRONG_TYPE
    messages: list[Message] = []
    for turn in turns:
        if not isinstance(turn, dict):
            return Reason.WRONG_TYPE
        message = _message(turn)
        if isinstance(message, Reason):
            return message
        messages.append(message)
    return messages


def _message(turn: dict[str, Any]) -> Message | Reason:
    role = turn.get("role") or turn.get("from")
    content = turn["content"] if "content" in turn else turn.get("value")
    if role is None or content is None:
        # A call of a tool has no content; leaving the call out would teach the model an empty answer.
        return Reason.WRONG_TYPE if turn.get("tool_calls") else Reason.MISSING_VALUE
    known = _ROLE_NAMES.get(role.lower()) if isinstance(role, str) else None
    text = _text(content)
    if known is None or text is None or turn.get("tool_calls"):
        return Reason.WRONG_TYPE
    return {"role": known, "content": text}


def _text(content: object) -> str | None:
    """The text of a content: a string, or a list of parts that are all text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else None


def is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and neither a tokenizer nor a database takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
