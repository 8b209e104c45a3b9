"""Which columns hold what of a row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ShapeName(StrEnum):
    """The ways in which a row holds what is learned."""

    PROMPT_RESPONSE = "prompt_response"
    ALPACA = "alpaca"
    MESSAGES = "messages"
    PREFERENCE = "preference"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Shape:
    """A recognised shape.

    Attributes:
        name: Which.
        columns: Role to column name; the roles are those of `MAIN_ROLES` and `FURTHER_ROLES`.
        named: The roles that the client named; the others were recognised.
    """

    name: ShapeName
    columns: Mapping[str, str]
    named: frozenset[str] = frozenset()


MAIN_ROLES: dict[ShapeName, tuple[frozenset[str], frozenset[str]]] = {  # needed, allowed besides
    ShapeName.PROMPT_RESPONSE: (frozenset({"prompt", "response"}), frozenset()),
    ShapeName.MESSAGES: (frozenset({"messages"}), frozenset()),
    ShapeName.ALPACA: (frozenset({"instruction", "output"}), frozenset({"input"})),
    ShapeName.PREFERENCE: (frozenset({"chosen", "rejected"}), frozenset({"prompt", "input"})),
    ShapeName.TEXT: (frozenset({"text"}), frozenset()),
}
PROMPTS_OF_PAIRS = (
    *("instruction", "question", "query", "problem", "messages", "conversations", "conversation", "input"),
)
"""Columns that are taken for the prompt of a pair where none has that name, the first that is there."""
FURTHER_ROLES: dict[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools",),
    "chat_template_kwargs": ("chat_template_kwargs",),
    "label": ("label", "kto_tag"),
}
"""What else a row may say, and the columns that are taken for it where the client names none."""


def shape_of(columns: Mapping[str, str]) -> Shape | None:
    """The shape of rows whose columns are all named, role to column; None if no shape has these roles."""
    main = columns.keys() - FURTHER_ROLES.keys()
    fitting = (name for name, (needed, allowed) in MAIN_ROLES.items() if needed <= main <= needed | allowed)
    name = next(fitting, None)
    return None if name is None else Shape(name, columns)
