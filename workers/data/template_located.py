"""Where the turns of a conversation are in what a chat template wrote."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from spice_rows.conversation import REASONING_FIELDS, Turn
from workers.data.template_marks import Marker, Site, Unmarked, common_prefix, common_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKS_ROOM = 10_000
"""Characters that marks may take besides as many as the text has."""
_WORD_EDGE = re.compile(r"[\s>\]\"\\]")


class NotLocated(Exception):
    """The replies of a conversation can't be found in what a template wrote."""


class Located:
    """A conversation's turns in the text that a template wrote."""

    def __init__(
        self,
        write: Callable[..., str],
        messages: list[Turn],
        marked: list[Turn],
        sites: list[Site],
        found: Unmarked,
        marker: Marker,
        variables: dict[str, Any],
    ) -> None:
        self._write = write
        self._marker = marker
        self._variables = variables
        self.messages = messages
        self.marked = marked
        self.sites = sites
        self.found = found
        self.text = found.text
        self._places = self._in_order()
        self._of: dict[int, list[list[int]]] = {}
        as_written = sorted(self._places, key=self._places.__getitem__)
        for turn, piece in itertools.groupby(as_written, lambda number: sites[number].turn):
            self._of.setdefault(turn, []).append(list(piece))

    def _in_order(self) -> dict[int, int]:
        """One place for each mark: the first that is not before those of the turns before, else the last."""
        chosen: dict[int, int] = {}
        before = reached = 0
        for number, site in enumerate(self.sites):
            if number and site.turn != self.sites[number - 1].turn:
                before = reached
            places = self.found.places.get(number)
            if places:
                chosen[number] = next((place for place in places if place >= before), places[-1])
                reached = max(reached, chosen[number])
        return chosen

    def rendered(self, marked: list[Turn], *, add_generation_prompt: bool = False) -> Unmarked:
        """A part of the conversation."""
        written = self._write(
            marked, self._variables, add_generation_prompt=add_generation_prompt, room=len(self.text) + MARKS_ROOM
        )
        return self._marker.unmarked(written)

    def absent(self) -> Iterator[int]:
        """Marks that the template did not write; of an empty text nothing is missing."""
        for number, site in enumerate(self.sites):
            if number not in self._places and (site.before or site.after):
                yield number

    def unmarked(self) -> Iterator[int]:
        """Turns with words and without a mark."""
        marked = {site.turn for site in self.sites}
        for place, turn in enumerate(self.messages):
            if place not in marked and isinstance(turn.get("content"), str) and turn["content"].strip():
                yield place

    def place(self, number: int | None) -> int | None:
        """Where a mark stands."""
        return None if number is None else self._places.get(number)

    def place_as_in(self, part: Unmarked, number: int) -> int | None:
        """Where in the text a mark stands that is the last in a part of it; templates may write a word repeatedly."""
        times, places = len(part.places[number]), self.found.places.get(number, [])
        return places[times - 1] if 1 < times <= len(places) else self.place(number)

    def own(self, turn: int) -> list[int]:
        """The marks of a turn."""
        return sorted(itertools.chain(*self._of.get(turn, ())))

    def name_of(self, site: Site) -> str:
        """The field of a turn that a mark of a thought lies in."""
        named = (name for name in REASONING_FIELDS if self.messages[site.turn].get(name))
        return next(named, "reasoning_content")

    def thinks(self, turn: int) -> bool:
        """Whether what is thought was written."""
        return any(self.sites[number].kind == "reasoning" for number in self.own(turn))

    def calls(self, turn: int) -> bool:
        """Whether the turn calls a tool."""
        return bool(self.messages[turn].get("tool_calls"))

    def pieces(self, turn: int) -> list[list[int]]:
        """The marks of a turn as they stand in the text, parted where words of another turn stand between them.

        Some templates write what a tool answers before what was said with its call.
        """
        return self._of[turn]

    def begins(self, turn: int) -> int:
        """Where the first of the turn's own text stands."""
        return self.begins_at(self.pieces(turn)[0][0])

    def begins_at(self, number: int) -> int:
        """Where the text begins that a mark lies in."""
        at, before = self._places[number], self.sites[number].before
        shared = common_suffix(self.text[:at], before)
        if shared < len(before.lstrip()):  # a thought was rewritten: a tag that is like the row's is the template's
            shared = min(shared, len(before.rpartition("</think>")[2]))
        return at - shared

    def ends(self, number: int) -> int:
        """Where the text ends that a mark lies in."""
        at = self._places[number]
        return at + common_prefix(self.text[at : at + len(self.sites[number].after)], self.sites[number].after)

    def is_whole(self, number: int) -> bool:
        """Whether what follows a mark of its own text is there as it is: a template may escape some of it."""
        return self.ends(number) - self._places[number] >= len(self.sites[number].after.rstrip())

    def limit(self, number: int) -> int:
        """Where words of a later turn begin after a mark; the end of the text without any."""
        at, turn = self._places[number], self.sites[number].turn
        later = [other for other, place in self._places.items() if self.sites[other].turn > turn and place > at]
        following = min(later, key=self._places.__getitem__, default=None)
        return len(self.text) if following is None else max(at, self.begins_at(following))

    def said_at(self, turn: int) -> int:
        """A place inside of what a turn says."""
        said = [number for number in self.own(turn) if self.sites[number].kind != "reasoning"] or self.own(turn)
        return self._places[said[0]]

    def turn_at(self, start: int, end: int) -> int | None:
        """The assistant's turn that a part of the text belongs to: the last with a mark in it, or before it."""
        spoken = sorted((place, self.sites[number].turn) for number, place in self._places.items() if place <= end)
        inside = [turn for place, turn in spoken if place >= start and self._speaks(turn)]
        if inside:
            return inside[-1]
        return spoken[-1][1] if spoken and self._speaks(spoken[-1][1]) else None

    def _speaks(self, turn: int) -> bool:
        return bool(self.messages[turn]["role"] == "assistant")

    def check_held(self, turn: int) -> None:
        """See that what the turn says is in the text as it is, around its mark at least.

        Raises:
            NotLocated: It is not: the template writes something else for it.
        """
        for number in self.own(turn):
            at, site = self._places[number], self.sites[number]
            before, after = _WORD_EDGE.split(site.before)[-1], _WORD_EDGE.split(site.after)[0]
            if not (self.text.endswith(before, 0, at) and self.text.startswith(after, at)):
                raise NotLocated("the chat template rewrites what the assistant says")
