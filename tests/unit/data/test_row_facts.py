"""Which rows are the same text."""

from __future__ import annotations

from typing import Any

import pytest

from workers.data.conversation import Conversation
from workers.data.row_facts import normalised_digest


def _said(*contents: Any, **fields: Any) -> Conversation:
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(contents)]
    return Conversation(messages=messages, learned=[False] * len(messages), **fields)


@pytest.mark.parametrize(
    "other",
    [
        _said("what IS  it?", "A\tcat\n"),
        _said(" What is it? ", "a cat"),
        _said("What is it?", "A \N{FULLWIDTH LATIN SMALL LETTER C}at"),
    ],
)
def test_case_white_space_and_unicode_form_do_not_tell_rows_apart(other: Conversation) -> None:
    assert normalised_digest(other) == normalised_digest(_said("What is it?", "A cat"))


@pytest.mark.parametrize(
    "other",
    [
        _said("What is it?", "A dog"),
        _said("What is it? A", "cat"),
        _said("What is it?", "A cat", tools=[{"name": "look"}]),
        _said("What is it?", "A cat", rejected=_said("What is it?", "A dog")),
    ],
)
def test_whatever_else_is_said_tells_rows_apart(other: Conversation) -> None:
    assert normalised_digest(other) != normalised_digest(_said("What is it?", "A cat"))


def test_calls_are_told_apart_by_numbers_and_names_and_rows_by_their_options() -> None:
    """Of a call nothing but its arguments may differ, which need not be text."""
    asked = [{}, {"x": 1}, {"x": 2}, {"y": 1}, {"x": True}]
    calls = [{"role": "assistant", "content": "", "tool_calls": [{"name": "move", "arguments": one}]} for one in asked]
    rows = [Conversation([call], [True]) for call in calls]
    rows += [Conversation([calls[0]], [True], kwargs={"enable_thinking": thinks}) for thinks in (True, False)]
    assert len({normalised_digest(row) for row in rows}) == len(rows)
