"""Marks are taken out of a text as they were put in, whole ones and those that a template has cut to pieces."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from workers.data.template_marks import MARKS, Marker, Unmarked

MARKER = Marker("")
OPENING, CLOSING, BEGIN, END = MARKS[:4]
PIECES = [OPENING, CLOSING, BEGIN, END, f"{OPENING}1{CLOSING}", f"{OPENING}12{CLOSING}", "1", "a", "\n", "é"]


def plain(written: str) -> Unmarked:
    """By definition, one character after the other: a number between its two marks is one mark, begin and end are."""
    text, at = "", 0
    places: dict[int, list[int]] = {}
    generations: list[tuple[int, int]] = []
    begun: list[int] = []
    while at < len(written):
        number = re.compile(f"{OPENING}(\\d+){CLOSING}").match(written, at)
        if number:
            places.setdefault(int(number[1]), []).append(len(text))
            at = number.end()
        elif written[at] in (BEGIN, END):
            if written[at] == BEGIN:
                begun.append(len(text))
            elif begun:
                generations.append((begun.pop(), len(text)))
            at += 2 if written[at + 1 : at + 2] == CLOSING else 1
        else:
            text += written[at]
            at += 1
    return Unmarked(text, places, generations)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_marks_are_taken_out_by_their_definition(written: str) -> None:
    assert MARKER.unmarked(written) == plain(written)


def test_characters_that_a_text_has_are_no_marks() -> None:
    marked, sites = Marker("".join(MARKS[:20])).marked([{"role": "user", "content": "Hi"}], {"content"}, empty=False)
    assert marked[0]["content"] == f"H{MARKS[20]}0{MARKS[21]}i"
    assert (sites[0].before, sites[0].after) == ("H", "i")
