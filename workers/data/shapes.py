"""Which columns hold the prompt and the response, told from the column names alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ShapeName(StrEnum):
    """The three ways in which a row holds a conversation."""

    PROMPT_RESPONSE = "prompt_response"
    ALPACA = "alpaca"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Shape:
    """A recognised shape.

    Attributes:
        name: Which of the three.
        columns: Role to column name; the roles are those of `_ROLES`, ``input`` may be left out.
    """

    name: ShapeName
    columns: Mapping[str, str]


_ROLES: dict[ShapeName, tuple[frozenset[str], frozenset[str]]] = {  # needed, allowed besides
    ShapeName.PROMPT_RESPONSE: (frozenset({"prompt", "response"}), frozenset()),
    ShapeName.MESSAGES: (frozenset({"messages"}), frozenset()),
    ShapeName.ALPACA: (frozenset({"instruction", "output"}), frozenset({"input"})),
}

# In order: the first whose columns are all there wins.
_KNOWN: tuple[tuple[ShapeName, dict[str, str]], ...] = (
    (ShapeName.MESSAGES, {"messages": "messages"}),
    (ShapeName.MESSAGES, {"messages": "conversations"}),
    (ShapeName.MESSAGES, {"messages": "conversation"}),
    (ShapeName.ALPACA, {"instruction": "instruction", "input": "input", "output": "output"}),
    (ShapeName.ALPACA, {"instruction": "instruction", "input": "input", "output": "response"}),
    (ShapeName.ALPACA, {"instruction": "instruction", "input": "context", "output": "response"}),
    *(
        (ShapeName.PROMPT_RESPONSE, {"prompt": prompt, "response": response})
        for prompt, response in (
            ("prompt", "response"),
            ("prompt", "completion"),
            ("question", "answer"),
            ("query", "response"),
            ("query", "answer"),
            ("instruction", "output"),
            ("instruction", "response"),
            ("input", "output"),
            ("question", "response"),
            ("problem", "solution"),
            ("prompt", "output"),
        )
    ),
)


def recognise(columns: Sequence[str], mapping: Mapping[str, str] | None = None) -> Shape:
    """Tell a dataset's shape from its column names.

    Args:
        columns: The dataset's columns. Names are compared without regard to case.
        mapping: Role to column, given by the client: {"prompt", "response"}, {"messages"} or {"instruction",
            "output"} with or without "input". It overrides what would be recognised; its names are exact.

    Raises:
        DatasetError: ``unknown_role`` or ``unknown_column`` for a mapping that does not fit,
            ``unrecognised_shape`` without one.
    """
    if mapping is not None:
        return _mapped(columns, mapping)
    by_lower_case = {column.lower(): column for column in reversed(columns)}
    for name, wanted in _KNOWN:
        if all(column in by_lower_case for column in wanted.values()):
            return Shape(name, {role: by_lower_case[column] for role, column in wanted.items()})
    raise DatasetError(
        "unrecognised_shape",
        f"no prompt and response among the columns {_listed(columns)}: name them with "
        '"columns": {"prompt": "...", "response": "..."} or {"messages": "..."}',
    )


def _mapped(columns: Sequence[str], mapping: Mapping[str, str]) -> Shape:
    roles = frozenset(mapping)
    fitting = [name for name, (needed, optional) in _ROLES.items() if needed <= roles <= needed | optional]
    if not fitting:
        raise DatasetError(
            "unknown_role",
            f'"columns" maps {_listed(sorted(roles))}: it should map prompt and response, or messages, or '
            "instruction and output (and input)",
        )
    for role, column in mapping.items():
        if column not in columns:
            raise DatasetError(
                "unknown_column",
                f'"columns" maps {role} to {column!r}, but the dataset\'s columns are '
                f"{_listed(columns)}: use one of those",
            )
    return Shape(fitting[0], dict(mapping))


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "(none)"
