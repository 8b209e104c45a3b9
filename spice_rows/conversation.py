"""A row as training sees it: turns, tools, variables of the chat template, and what is learned."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from spice_rows.shape import PROMPTS_OF_PAIRS, ShapeName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from spice_rows.shape import Shape

Turn = dict[str, Any]
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names under which data sets and templates keep what a model thinks before it answers."""
TrainOn = Literal["all", "last"]
Preference = Literal["chosen", "rejected", "dpo", "all"]

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "function",
    "ipython": "ipython",
    "observation": "observation",
    "tool_response": "tool",
    "function_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""A role as data sets write it, and as it is carried to the chat template."""
CALLING_ROLES = frozenset({"function_call", "tool_call"})
SYSTEM_ROLES = frozenset({"system", "developer"})
RESULT_ROLES = frozenset({"tool", "function", "ipython", "observation"})
ROLE_FIELDS = ("role", "from")
CONTENT_FIELDS = ("content", "value", "text")
FLAGS = ("weight", "train", "loss", "trainable")
"""Fields of a turn that say whether it carries loss."""


class RowRefused(Exception):
    """A row that can't be used.

    Attributes:
        reason: ``missing_value``, ``wrong_type``, ``empty_response``, ``invalid_utf8`` or ``undesirable``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the rows is to be learned.

    Attributes:
        train_on: Every reply of a conversation, or the last.
        preference: Of rows with a chosen and a rejected reply, which; `dpo` is both. Of rows with a label, `chosen`
            leaves out those that are labelled false, `rejected` those that are labelled true.
    """

    train_on: TrainOn = "all"
    preference: Preference = "chosen"


EVERY_REPLY = Wanted()


@dataclass(slots=True)
class Conversation:
    """What a row says.

    Attributes:
        messages: The turns: `role`, `content` and whatever else the row has. Empty if the row is plain text.
        learned: Whether each turn carries loss.
        tools: Descriptions of functions.
        kwargs: Further variables for the chat template.
        text: Plain text, all of it learned.
        rejected: Of a pair, the conversation that is not preferred.
        ignored: Fields that the row has and nothing reads.
    """

    messages: list[Turn]
    learned: list[bool]
    tools: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    text: str | None = None
    rejected: Conversation | None = None
    ignored: set[str] = field(default_factory=set)

    def characters(self) -> int:
        """About how long it is."""
        said = sum(len(value) for turn in self.messages for value in turn.values() if isinstance(value, str))
        other = 0 if self.rejected is None else self.rejected.characters()
        return said + len(self.text or "") + other

    def document(self) -> dict[str, Any]:
        """What the process that renders needs of it."""
        return {"messages": self.messages, "learned": self.learned, "tools": self.tools, "kwargs": self.kwargs}


def read_row(values: Mapping[str, Any], shape: Shape, wanted: Wanted = EVERY_REPLY) -> Conversation:
    """What a row says, whole.

    Args:
        values: The row's columns.
        shape: Where to look.
        wanted: What is to be learned.

    Returns:
        A conversation of which at least one turn is learned; an empty prompt is fine, some datasets are responses
        alone.

    Raises:
        RowRefused: The row can't be used.
    """
    return _READERS[shape.name](_Row(values, shape), wanted)


class _Row:
    """A row's values by role."""

    def __init__(self, values: Mapping[str, Any], shape: Shape) -> None:
        self._values = values
        self._shape = shape
        self.ignored: set[str] = set()
        if not values.keys() <= set(shape.columns.values()):
            used = set(shape.columns.values())
            self.ignored = {name for name, value in values.items() if name not in used and _says(value)}

    def column(self, role: str) -> str:
        """The column's name; nothing where the row has none."""
        return self._shape.columns.get(role, "")

    def get(self, role: str) -> Any:  # noqa: ANN401 - any JSON
        """The value, None where the row has none; bytes as text."""
        column = self._shape.columns.get(role)
        return None if column is None else _value(self._values.get(column))

    def needed(self, role: str) -> Any:  # noqa: ANN401 - any JSON
        """The value; MISSING_VALUE without one."""
        value = self.get(role)
        if value is None:
            raise RowRefused("missing_value")
        return value

    def unfit(self, role: str) -> None:
        """A further column that holds something else: refused if the client named it, else left out."""
        if role in self._shape.named:
            raise RowRefused("wrong_type")
        self.ignored.add(self._shape.columns[role])

    def leave_out(self, *roles: str) -> None:
        """Note columns that rows of this shape have no use for, although the client named them."""
        for role in roles:
            if _says(self.get(role)):
                self.ignored.add(self._shape.columns[role])

    def system(self) -> list[Turn]:
        """The system turn of a column of its own."""
        value = self.get("system")
        if value is None or value == "":
            return []
        if not isinstance(value, str):
            self.unfit("system")
            return []
        return [{"role": "system", "content": value}]

    def history(self) -> list[Turn]:
        """Turns before those of the row: pairs of question and answer, or messages."""
        value = parsed(self.get("history"))
        if not value:
            return []
        if not isinstance(value, list):
            self.unfit("history")
            return []
        if all(isinstance(item, dict) for item in value):
            return _turns(value, self.ignored)
        turns: list[Turn] = []
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(said, str) for said in pair):  # noqa: PLR2004
                raise RowRefused("wrong_type")
            turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        return turns

    def tools(self) -> list[Any] | None:
        """Descriptions of functions: a list, each perhaps as JSON text, or JSON text of a list."""
        value = parsed(self.get("tools"))
        if value is None or value in ("", [], {}):
            return None
        if isinstance(value, dict):
            value = [value]
        tools = [parsed(tool) for tool in value] if isinstance(value, list) else None
        if tools is None or not all(isinstance(tool, dict) for tool in tools):
            self.unfit("tools")
            return None
        return tools

    def kwargs(self) -> dict[str, Any] | None:
        """Variables for the chat template."""
        value = parsed(self.get("chat_template_kwargs"))
        if not value:
            return None
        if not isinstance(value, dict):
            self.unfit("chat_template_kwargs")
            return None
        return {name: item for name, item in value.items() if item is not None}

    def label(self, wanted: Wanted) -> None:
        """See that the row's label is the one that is asked for."""
        value = self.get("label")
        if value is None or wanted.preference in ("all", "dpo"):
            return
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if not isinstance(value, bool):
            self.unfit("label")
        elif value != (wanted.preference == "chosen"):
            raise RowRefused("undesirable")

    def conversation(self, turns: list[Turn], wanted: Wanted, prompt: int = 0) -> Conversation:
        """A conversation of turns, the first `prompt` of which are not learned."""
        system = self.system()
        if system and any(turn["role"] in SYSTEM_ROLES for turn in turns[:1]):
            if system[0]["content"] != turns[0]["content"]:
                self.ignored.add(self._shape.columns["system"])
            system = []
        turns = [*system, *turns]
        prompt = prompt + len(system) if prompt else 0
        learned = [place >= prompt and _is_learned(turn) for place, turn in enumerate(turns)]
        spoken = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
        if wanted.train_on == "last" and spoken:
            learned = [keep and place == spoken[-1] for place, keep in enumerate(learned)]
        for turn in turns:
            _drop_flags(turn, self.ignored)
        if not any(learned):
            raise RowRefused("empty_response")
        tools, kwargs = self.tools(), self.kwargs()
        if not all(map(is_unicode, _texts([turns, tools, kwargs]))):
            raise RowRefused("invalid_utf8")
        return Conversation(turns, learned, tools, kwargs, ignored=self.ignored)


def _from_messages(row: _Row, wanted: Wanted) -> Conversation:
    row.label(wanted)
    values = parsed(row.needed("messages"))
    if not isinstance(values, list):
        raise RowRefused("wrong_type")
    return row.conversation(_after(row.history(), _turns(values, row.ignored)), wanted)


def _from_prompt(row: _Row, wanted: Wanted) -> Conversation:
    row.label(wanted)
    prompt = _side(row.needed("prompt"), "user", row.ignored)
    response = _side(row.needed("response"), "assistant", row.ignored)
    history = row.history()
    turns = _after(history, [*prompt, *response])
    # The prompt may be a conversation, of which only the completion is learned; in a history of its own all are.
    in_prompt = len(history) + len(prompt) if any(turn["role"] == "assistant" for turn in prompt) else 0
    return row.conversation(turns, wanted, in_prompt)


def _from_alpaca(row: _Row, wanted: Wanted) -> Conversation:
    row.label(wanted)
    texts = {role: _text_of(row.needed(role)) for role in ("instruction", "output")}
    given = row.get("input")
    texts["input"] = "" if given is None else _text_of(given)
    prompt = "\n\n".join(text for text in (texts["instruction"], texts["input"]) if text)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": texts["output"]}]
    return row.conversation([*row.history(), *turns], wanted)


def _from_text(row: _Row, wanted: Wanted) -> Conversation:
    del wanted
    row.leave_out("system", "history", "tools", "chat_template_kwargs", "label")
    text = _text_of(row.needed("text"))
    if not text.strip():
        raise RowRefused("empty_response")
    if not is_unicode(text):
        raise RowRefused("invalid_utf8")
    return Conversation([], [], text=text, ignored=row.ignored)


def _from_preference(row: _Row, wanted: Wanted) -> Conversation:
    chosen = _side(row.needed("chosen"), "assistant", row.ignored)
    rejected = _side(row.needed("rejected"), "assistant", row.ignored)
    prompt = _asked(row, chosen)
    row.leave_out("label")
    texts = (row.get("chosen"), row.get("rejected"))
    if not prompt and all(isinstance(text, str) for text in texts):
        shared = _shared(*texts)
        prompt = [{"role": "user", "content": texts[0][:shared]}] if shared else []
        chosen, rejected = ([{"role": "assistant", "content": text[shared:]}] for text in texts)
    common = _in_common(chosen, rejected)
    if prompt and not _holds(chosen[:common], prompt):
        chosen, rejected = [*prompt, *chosen], [*prompt, *rejected]
        common += len(prompt)
    history = row.history()
    chosen, rejected = _after(history, chosen), _after(history, rejected)
    common += len(history)
    common = min(common, len(chosen) - 1, len(rejected) - 1)
    sides = {"chosen": chosen, "rejected": rejected}
    if wanted.preference != "dpo":
        return row.conversation(sides["rejected" if wanted.preference == "rejected" else "chosen"], wanted, common)
    found = row.conversation([dict(turn) for turn in chosen], wanted, common)
    found.rejected = row.conversation([dict(turn) for turn in rejected], wanted, common)
    return found


def _asked(row: _Row, chosen: list[Turn]) -> list[Turn]:
    """The prompt of a pair; none where its sides are whole conversations and the column is one of another name."""
    given, beside = row.get("prompt"), row.get("input")
    asked = [turn["content"] for turn in chosen if turn["role"] == "user"]
    if asked and row.column("prompt").lower() in PROMPTS_OF_PAIRS:
        row.leave_out(*(role for role in ("prompt", "input") if row.get(role) not in asked))
        return []
    if given is None and beside is None:
        return []
    if beside is not None and isinstance(given, str | None):
        given = "\n\n".join(text for text in (given, _text_of(beside)) if text)
    else:
        row.leave_out("input")
    return _side(given, "user", row.ignored)


def _shared(chosen: str, rejected: str) -> int:
    """Characters of the prompt that two texts begin with, as `trl.data_utils.extract_prompt` parts them.

    A space before the replies belongs to them. 0 where nothing would be left of one.
    """
    same = _in_common(chosen, rejected)
    same -= chosen[:same].endswith(" ")
    return same if chosen[same:].strip() and rejected[same:].strip() and chosen[:same].strip() else 0


_READERS: dict[ShapeName, Callable[[_Row, Wanted], Conversation]] = {
    ShapeName.MESSAGES: _from_messages,
    ShapeName.PROMPT_RESPONSE: _from_prompt,
    ShapeName.ALPACA: _from_alpaca,
    ShapeName.PREFERENCE: _from_preference,
    ShapeName.TEXT: _from_text,
}


def _after(history: list[Turn], turns: list[Turn]) -> list[Turn]:
    """Turns after those of a history; a system turn at their beginning stays the first."""
    head = sum(turn["role"] in SYSTEM_ROLES for turn in turns[:1])
    return [*turns[:head], *history, *turns[head:]]


def _holds(turns: list[Turn], part: list[Turn]) -> bool:
    """Whether turns stand among others, one after the other."""
    return any(turns[place : place + len(part)] == part for place in range(len(turns) - len(part) + 1))


def _in_common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many turns, or characters, both begin with."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _side(value: Any, role: str, ignored: set[str]) -> list[Turn]:  # noqa: ANN401 - any JSON
    """A prompt or a response: text of one turn, or the turns themselves."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RowRefused("wrong_type")
    return _turns(value, ignored)


def _turns(values: list[Any], ignored: set[str]) -> list[Turn]:
    return [_turn(value, ignored) for value in values]


def _turn(value: Any, ignored: set[str]) -> Turn:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict):
        raise RowRefused("wrong_type")
    given = {name: _value(item) for name, item in value.items()}
    given = {name: item for name, item in given.items() if item is not None}
    role_field = next((name for name in ROLE_FIELDS if name in given), None)
    if role_field is None:
        raise RowRefused("missing_value")
    named = given.pop(role_field)
    known = ROLES.get(named.strip().lower()) if isinstance(named, str) else None
    if known is None:
        raise RowRefused("wrong_type")
    content_field = next((name for name in CONTENT_FIELDS if name in given), None)
    content = None if content_field is None else given.pop(content_field)
    turn: Turn = {"role": known, "content": content, **given}
    _take_calls(turn, named.strip().lower())
    _take_content(turn, ignored)
    return turn


def _take_calls(turn: Turn, named: str) -> None:
    """Calls of tools as `tool_calls`, whichever way they are written."""
    legacy = parsed(turn.pop("function_call", None))
    calls = parsed(turn.get("tool_calls"))
    if named in CALLING_ROLES:
        calls = calls or _as_calls(parsed(turn["content"]))
        if calls:
            turn["content"] = ""
    if isinstance(legacy, dict):
        calls = [*(calls or []), {"type": "function", "function": legacy}]
    elif legacy:
        raise RowRefused("wrong_type")
    if isinstance(calls, dict):
        calls = [calls]
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise RowRefused("wrong_type")
    turn.pop("tool_calls", None)
    if calls:
        turn["tool_calls"] = calls


def _as_calls(value: Any) -> list[Any] | None:  # noqa: ANN401 - any JSON
    """Calls that stand as JSON where a text would."""
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return [{"type": "function", "function": call} for call in calls]


def _take_content(turn: Turn, ignored: set[str]) -> None:
    """The content as text, or null beside calls; thoughts among its parts go to their own field."""
    content = turn["content"]
    if isinstance(content, list) and turn["role"] not in RESULT_ROLES:
        content = _joined(content, turn, ignored)
    thinks = any(isinstance(turn.get(name), str) for name in REASONING_FIELDS)
    if content is None and not turn.get("tool_calls") and not thinks:
        raise RowRefused("missing_value")
    if content is not None and not isinstance(content, str):
        if turn["role"] not in RESULT_ROLES or not isinstance(content, list | dict):
            raise RowRefused("wrong_type")
        texts = [_part_text(part, ignored) for part in content] if isinstance(content, list) else [None]
        content = "".join(text for text in texts if text) if all(text is not None for text in texts) else content
    if content is None and not turn.get("tool_calls"):
        content = ""
    turn["content"] = content


def _joined(parts: list[Any], turn: Turn, ignored: set[str]) -> str:
    texts: list[str] = []
    for part in parts:
        text = _part_text(part, ignored)
        if text is not None:
            texts.append(text)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in REASONING_FIELDS or not isinstance(part.get(kind), str):
            raise RowRefused("wrong_type")
        turn["reasoning_content"] = turn.get("reasoning_content", "") + part[kind]
        _leave_out_of_part(part, kind, ignored)
    return "".join(texts)


def _part_text(part: Any, ignored: set[str]) -> str | None:  # noqa: ANN401 - any JSON
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        _leave_out_of_part(part, "text", ignored)
        return str(part["text"])
    return None


def _leave_out_of_part(part: Turn, kind: str, ignored: set[str]) -> None:
    """Note what a part of a content says besides its text."""
    ignored |= {name for name, value in part.items() if name not in ("type", kind) and _says(value)}


def _is_learned(turn: Turn) -> bool:
    """Whether a turn is a reply that says something and is not flagged as one that carries no loss."""
    if turn["role"] != "assistant":
        return False
    if any(_flag(turn.get(name)) is False for name in FLAGS):
        return False
    said = [turn.get("content"), *(turn.get(name) for name in REASONING_FIELDS)]
    return bool(turn.get("tool_calls")) or any(isinstance(text, str) and text.strip() for text in said)


def _flag(value: Any) -> bool | None:  # noqa: ANN401 - any JSON
    """What a flag says, written as a truth value, as 0 or 1, or as a text of these; None where it says neither."""
    word = value.strip().lower() if isinstance(value, str) else value
    return True if word in (1, "true", "1") else False if word in (0, "false", "0") else None


def _drop_flags(turn: Turn, ignored: set[str]) -> None:
    """Take the flags out of a turn, and note those that say neither yes nor no, such as a weight of a half."""
    for name in FLAGS:
        if name in turn and _flag(turn.pop(name)) is None:
            ignored.add(name)


def _says(value: object) -> bool:
    is_nan = isinstance(value, float) and value != value  # noqa: PLR0124
    return not is_nan and value not in (None, "", b"", [], {})


def _value(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """A value with NaN as null, and bytes, as some writers of Parquet leave them, as text."""
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise RowRefused("invalid_utf8") from None
    return value


def _text_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    if not isinstance(value, str):
        raise RowRefused("wrong_type")
    return value


def parsed(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """What a text that is an array or object of JSON says; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """All texts of a value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(name)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and neither a tokenizer nor a database takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
