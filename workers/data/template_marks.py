"""Marks in the texts of a conversation, so that its turns can be found in what a chat template writes.

A mark is put into the middle of a text and not in its place: a template that trims it, looks at how it begins or ends,
or writes it as JSON does the same with it as without, and the text without its marks is the text of the row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from spice_rows.conversation import REASONING_FIELDS, Turn

Kind = Literal["content", "reasoning", "call"]

MARKS = tuple(chr(code) for code in (*range(0xEFD0, 0xEFE0), *range(0x10F8D0, 0x10F8E0)))
"""Characters for private use: a row's text has at most some of them. The first sixteen take half the memory."""

_TAG = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z_/]{1,20}\]|(?<!\S)/[a-z_]{1,20}")


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a conversation that can be marked.

    Attributes:
        turn: Number of the turn.
        kind: What of the turn it lies in.
        before: The turn's own text up to the place.
        after: The turn's own text from the place on.
    """

    turn: int
    kind: Kind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Unmarked:
    """What a template wrote, without its marks.

    Attributes:
        text: The text.
        places: For each mark, where in the text it stood, in order.
        generations: [start, end) of each part that the template itself says is generated.
    """

    text: str
    places: dict[int, list[int]]
    generations: list[tuple[int, int]]


class Marker:
    """Marks with characters that do not occur in a text."""

    def __init__(self, text: str) -> None:
        """Choose the characters; ValueError if the text has them all."""
        free = [character for character in MARKS if character not in text][:4]
        if len(free) < 4:  # noqa: PLR2004 - two around a number, two around what is generated
            raise ValueError("the text uses all of the characters that marks are made of")
        self._open, self._close, self.begin, self.end = free
        self._any = _pattern(*free)

    def marked(
        self, messages: list[Turn], wanted: set[Kind], *, empty: bool, others: bool = True
    ) -> tuple[list[Turn], list[Site]]:
        """A conversation with marks in it, and what each marks, by its number.

        Args:
            messages: The turns; they stay as they are.
            wanted: Kinds of places to mark.
            empty: Whether to mark texts of other turns than the assistant's that are empty.
            others: Whether to mark other turns than the assistant's at all.
        """
        sites: list[Site] = []
        turns = [
            self._turn(number, turn, wanted, empty, sites) if others or turn["role"] == "assistant" else turn
            for number, turn in enumerate(messages)
        ]
        return turns, sites

    def unmarked(self, written: str) -> Unmarked:
        """Take the marks out of what a template wrote."""
        if self.begin not in written and self.end not in written:
            found = self._numbered(written)
            if found is not None:
                return found
        parts = self._any.split(written)  # a text, then a number, or one of the two others, and so on
        places: dict[int, list[int]] = {}
        generations: list[tuple[int, int]] = []
        begun: list[int] = []
        size = 0
        for text, mark in zip(parts[::2], parts[1::2], strict=False):
            size += len(text)
            if mark == self.begin:
                begun.append(size)
            elif mark != self.end:
                places.setdefault(int(mark[1:]), []).append(size)
            elif begun:
                generations.append((begun.pop(), size))
        return Unmarked("".join(parts[::2]), places, generations)

    def _numbered(self, written: str) -> Unmarked | None:
        """The same for marks with numbers alone, which is quicker; None where some are not whole."""
        text, *marked = written.split(self._open)
        places: dict[int, list[int]] = {}
        texts, size = [text], len(text)
        for part in marked:
            number, closed, text = part.partition(self._close)
            if not closed or not number.isdecimal():
                return None
            places.setdefault(int(number), []).append(size)
            texts.append(text)
            size += len(text)
        return Unmarked("".join(texts), places, [])

    def _turn(self, number: int, turn: Turn, wanted: set[Kind], empty: bool, sites: list[Site]) -> Turn:
        marked = dict(turn)
        speaks = turn["role"] == "assistant"
        if "reasoning" in wanted:
            for name in REASONING_FIELDS:
                if isinstance(turn.get(name), str) and turn[name].strip():
                    marked[name] = self._text(number, turn[name], "reasoning", sites)
        content = turn.get("content")
        if "content" in wanted and isinstance(content, str):
            if content.strip() or (empty and not speaks):
                marked["content"] = self._content(number, content, sites, thinks="reasoning" in wanted and speaks)
        elif "content" in wanted and isinstance(content, list):
            marked["content"] = [self._part(number, part, sites) for part in content]
        if "call" in wanted and isinstance(turn.get("tool_calls"), list):
            marked["tool_calls"] = [self._call(number, call, sites) for call in turn["tool_calls"]]
        return marked

    def _content(self, number: int, content: str, sites: list[Site], *, thinks: bool) -> str:
        """Mark what is said, and what is thought if the content has both."""
        thought, end, said = content.rpartition("</think>")
        if not end or not thinks:
            return self._text(number, content, "content", sites)
        opening, start, inner = thought.partition("<think>")
        if not start:
            opening, inner = "", thought
        if inner.strip():
            inner = self._text(number, inner, "reasoning", sites)
        if said.strip():
            said = self._text(number, said, "content", sites, before=content[: len(content) - len(said)])
        return opening + start + inner + end + said

    def _part(self, number: int, part: Any, sites: list[Site]) -> Any:  # noqa: ANN401 - any JSON
        if not isinstance(part, dict) or not isinstance(part.get("text"), str) or not part["text"].strip():
            return part
        return {**part, "text": self._text(number, part["text"], "content", sites)}

    def _call(self, number: int, call: Any, sites: list[Site]) -> Any:  # noqa: ANN401 - any JSON
        if not isinstance(call, dict):
            return call
        if isinstance(call.get("function"), dict):
            return {**call, "function": self._call(number, call["function"], sites)}
        if isinstance(call.get("name"), str) and call["name"]:
            return {**call, "name": self._text(number, call["name"], "call", sites)}
        return call

    def _text(self, number: int, text: str, kind: Kind, sites: list[Site], *, before: str = "") -> str:
        place = _middle(text)
        mark = f"{self._open}{len(sites)}{self._close}"
        sites.append(Site(number, kind, before + text[:place], text[place:]))
        return text[:place] + mark + text[place:]


@cache
def _pattern(opening: str, closing: str, begin: str, end: str) -> re.Pattern[str]:
    return re.compile(f"({opening}\\d+(?={closing})|{begin}|{end}){closing}?")


def _middle(text: str) -> int:
    """A place in the middle of a text's visible part, not inside of a tag that a template may look for."""
    first = len(text) - len(text.lstrip())
    visible = len(text.strip())
    place = first + (visible + 1) // 2
    around = text[max(0, place - 50) : place + 50]
    offset = max(0, place - 50)
    for tag in _TAG.finditer(around):
        if offset + tag.start() < place < offset + tag.end():
            return offset + tag.end()
    return place


def common_prefix(first: str, second: str) -> int:
    """Characters that two texts begin with in common."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_suffix(first: str, second: str) -> int:
    """Characters that two texts end with in common."""
    if first.endswith(second):
        return len(second)
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[len(first) - middle : len(first) - low] == second[len(second) - middle : len(second) - low]:
            low = middle
        else:
            high = middle - 1
    return low
