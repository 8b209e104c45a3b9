"""Render conversations with a chat template and find in the text what the model is to learn.

The rule, one for every template and every number of turns:

- A conversation is rendered whole and cut afterwards, since templates treat the last turn differently.
- It is rendered once more with a mark inside each turn's text (`workers.data.template_marks`). Without its marks this
  must be the very text of the conversation; then the marks say where each turn is. Where a mark in another turn changes
  the text, the replies alone have marks.
- A reply begins after the generation prompt: what the template writes after the turns before it when it is asked for
  one. Where the text has no such prompt, the reply begins with its own first word. A thought that the template opens
  and closes without a word of the row is passed over, with the white space after it.
- A reply ends with the end-of-turn token that follows its own last word; white space after that token, further tokens
  that end the whole text, and the header of the next turn do not belong to it.
- Words of another turn that the template writes amid a reply part it into pieces.
- A template with `{% generation %}` says itself where replies are; what it says must hold the reply's own text.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from spice_rows.conversation import REASONING_FIELDS, Turn
from workers.data.template_environment import compiled
from workers.data.template_leavings import PLAIN_FIELDS, leavings
from workers.data.template_located import MARKS_ROOM, Located, NotLocated
from workers.data.template_marks import Kind, Marker, common_prefix
from workers.data.template_spellings import spellings
from workers.data.template_words import (
    EMPTY_THOUGHT,
    END_TOKENS,
    PREFILLED_THOUGHT,
    THOUGHT_BEGINS,
    THOUGHT_ENDS,
    Words,
    ends_a_turn,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Span = tuple[int, int]

_KINDS: tuple[tuple[set[Kind], bool, bool], ...] = (
    ({"content", "reasoning", "call"}, True, True),
    ({"content", "reasoning", "call"}, False, True),
    ({"content", "call"}, False, True),
    ({"content", "reasoning"}, False, True),
    ({"content"}, False, True),
    ({"content", "reasoning", "call"}, False, False),
)
"""What is marked, empty texts too or not, of other turns than replies or not: as much as the template takes without
writing another text for it. Some look for words such as `/no_think` in a system prompt and take them out of it."""
_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


BLOCKS_AT_ONCE = 64
"""Pieces of a text that are taken from a template between two looks at its length."""


class TextTooLong(Exception):
    """What a template wrote is longer than the limit."""


class NotWritten(Exception):
    """A template leaves out what a row is about."""


@dataclass(slots=True)
class Conversation:
    """What a row says.

    Attributes:
        messages: The turns, each with `role`, `content` and whatever else the row has.
        learned: Whether each turn carries loss; only the assistant's can.
        tools: Descriptions of functions, or None.
        kwargs: Further variables for the template.
    """

    messages: list[Turn]
    learned: list[bool]
    tools: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation as a template writes it.

    Attributes:
        text: The whole text.
        responses: [start, end) in characters of what is learned of each reply, in order.
        ignored: Names of what the row says and the template leaves out.
    """

    text: str
    responses: list[Span]
    ignored: list[str]


class Renderer:
    """One template, with what it may see besides a conversation."""

    def __init__(
        self, source: str, variables: dict[str, Any], control_tokens: Sequence[str], most_characters: int
    ) -> None:
        """Compile it.

        Args:
            source: Jinja.
            variables: Names that the template may use.
            control_tokens: Tokens of the tokenizer that are no ordinary text.
            most_characters: The longest text that it may write.

        Raises:
            jinja2.TemplateSyntaxError: It is not valid Jinja.
        """
        self._template = compiled(source)
        self._template.globals = dict(self._template.globals)  # which is copied for each text, and slow as a chain
        self._words = Words(self._template.environment.parse(source))
        self._variables = variables
        self._most_characters = most_characters
        ends = variables.get("eos_token") or ()
        last = {ends} if isinstance(ends, str) else set(ends)
        tokens = sorted({*control_tokens, *END_TOKENS, *last} - {""}, key=len, reverse=True)
        self._token = re.compile("|".join(map(re.escape, tokens)))
        self._run = re.compile(rf"\s*(?:{self._token.pattern})+")
        self._ends = frozenset(token for token in tokens if ends_a_turn(token, last))
        self._longest_token = len(tokens[0])
        named = [name for name in REASONING_FIELDS if name in self._words.names]
        self._reasoning = named[0] if named else None

    def render(self, conversation: Conversation) -> Written:
        """The text of a conversation and what is learned of it.

        Templates disagree about how a call of a tool is spelled (arguments as an object or as text, content empty or
        null) and whether a content is text or parts. The row's own spelling is tried first.

        Raises:
            NotLocated: The replies can't be found.
            NotWritten: The template leaves a reply or a call out.
            TextTooLong: The text, or one that is needed on the way, is longer than the limit.
            Exception: Whatever the template raises.
        """
        variables, ignored = self._extra(conversation.kwargs)
        messages = [self._turn(turn, ignored) for turn in conversation.messages]
        if conversation.tools and "tools" not in self._words.names:
            ignored.add("tools")
        first: Exception | None = None
        for spelled, tools in spellings(messages, conversation.tools):
            seen = {**variables, "tools": tools}
            try:
                text, responses, left_out = self._written(spelled, conversation.learned, seen)
                left_out = _as_the_row_names(left_out, conversation.messages)
                left_out |= self._without_effect(spelled, seen, text)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it raises, another spelling may suit
                first = first or error
                if isinstance(first, TextTooLong):
                    break
            else:
                return Written(text, responses, sorted(ignored | left_out))
        raise first or NotLocated

    def _extra(self, kwargs: dict[str, Any] | None) -> tuple[dict[str, Any], set[str]]:
        """Variables that the row sets, and whether some lead nowhere."""
        free = {
            name: value
            for name, value in (kwargs or {}).items()
            if name not in _RESERVED and name not in self._variables and not name.startswith("_")
        }
        known = {name: value for name, value in free.items() if name in self._words.names}
        return free, {"chat_template_kwargs"} if len(known) < len(kwargs or {}) else set()

    def _turn(self, turn: Turn, ignored: set[str]) -> Turn:
        """A turn in the names that this template knows; what it does not look at is noted."""
        role = turn["role"]
        if role not in self._words.roles and role not in ("system", "user", "assistant"):
            role = "system" if role == "developer" else "tool"
        seen = {**turn, "role": role}
        for name in REASONING_FIELDS:
            if name in seen and name not in self._words.names and self._reasoning is not None:
                value = seen.pop(name)
                if seen.setdefault(self._reasoning, value) != value:
                    ignored.add(name)
        for name in seen.keys() - PLAIN_FIELDS - self._words.names:
            if name == "tool_calls":
                raise NotWritten("the chat template does not write calls of tools")
            ignored.add(name)
        return seen

    def _written(
        self, messages: list[Turn], learned: list[bool], variables: dict[str, Any]
    ) -> tuple[str, list[Span], set[str]]:
        text = self.write(messages, variables)
        located = self._located(messages, text, variables)
        left_out: set[str] = set()
        for number in located.absent():
            site = located.sites[number]
            if site.kind == "reasoning":
                left_out.add(located.name_of(site))
            elif site.kind == "call":
                raise NotWritten("the chat template does not write calls of tools")
            elif learned[site.turn] and messages[site.turn]["role"] == "assistant":
                raise NotWritten("the chat template leaves out what the assistant says")
            else:
                left_out.add(str(messages[site.turn]["role"]))
        for place in located.unmarked():
            without = [{**turn, "content": ""} if i == place else turn for i, turn in enumerate(messages)]
            if self._writes(without, variables, text):
                left_out.add(str(messages[place]["role"]))
        wanted = [i for i, wanted in enumerate(learned) if wanted and located.own(i)]
        for turn in wanted:
            located.check_held(turn)
        spans = self._claimed(located, wanted) if self._words.marks_generations else self._found(located, wanted)
        if not spans:
            raise NotLocated
        return text, spans, left_out

    def _without_effect(self, messages: list[Turn], variables: dict[str, Any], text: str) -> set[str]:
        """Names of what the row says, the template looks at, and the text would be the same without.

        A template that writes the name of a called function names `name` as well, and leaves out that of a turn.
        """
        found = {name for name, without in leavings(messages) if self._writes(without, variables, text)}
        if variables["tools"] and self._writes(messages, {**variables, "tools": None}, text):
            found.add("tools")
        return found

    def _writes(self, messages: list[Turn], variables: dict[str, Any], text: str) -> bool:
        """Whether this is what the template writes of turns."""
        try:
            return self.write(messages, variables) == text
        except (TemplateError, TypeError, ValueError, LookupError):
            return False

    def _located(self, messages: list[Turn], text: str, variables: dict[str, Any]) -> Located:
        """Where each turn is in the text.

        Raises:
            NotLocated: Whatever is marked, the template writes another text for it.
        """
        try:
            marker = Marker(text)
        except ValueError as error:
            raise NotLocated(str(error)) from None
        for kinds, empty, others in _KINDS:
            marked, sites = marker.marked(messages, kinds, empty=empty, others=others)
            try:
                with self._template.environment.generations_between(marker.begin, marker.end):  # type: ignore[attr-defined]
                    found = marker.unmarked(self.write(marked, variables, room=len(text) + MARKS_ROOM))
            except TemplateError:
                continue
            if found.text == text:
                return Located(self.write, messages, marked, sites, found, marker, variables)
        raise NotLocated("the chat template writes another text when a word of a turn changes")

    def _claimed(self, located: Located, wanted: list[int]) -> list[Span]:
        """What the template itself says is generated, of the turns that are to be learned."""
        by_turn: dict[int, list[Span]] = {}
        for start, end in sorted(located.found.generations):
            turn = located.turn_at(start, end)
            if turn is not None:
                by_turn.setdefault(turn, []).append((start, end))
        spans: list[Span] = []
        for turn in wanted:
            claimed = by_turn.get(turn, [])
            if claimed and not any(start <= located.said_at(turn) <= end for start, end in claimed):
                raise NotLocated("what the chat template marks as generated does not hold the reply")
            for place, (start, end) in enumerate(claimed):
                begin = start
                if place == 0:
                    first = located.begins(turn)
                    begin = self._past_empty_thought(located, start, first)
                    empty = EMPTY_THOUGHT.search(located.text, begin, first)  # after a header that is claimed as well
                    if empty is not None:
                        spans.append((begin, empty.end() - len(empty[0].lstrip())))
                        begin = empty.end()
                spans.append((begin, self._without_white_space(located.text, begin, end)))
        return [(start, end) for start, end in spans if start < end]

    def _without_white_space(self, text: str, start: int, end: int) -> int:
        """Leave out white space after an end-of-turn token: nobody generates beyond that token."""
        stripped = len(text[start:end].rstrip()) + start
        return stripped if any(text.endswith(token, start, stripped) for token in self._ends) else end

    def _found(self, located: Located, wanted: list[int]) -> list[Span]:
        spans: list[Span] = []
        for turn in wanted:
            first, *further = located.pieces(turn)
            spans.append((self._begin(located, turn), self._end(located, first[-1])))
            spans += [(located.begins_at(piece[0]), self._end(located, piece[-1])) for piece in further]
        return spans

    def _begin(self, located: Located, turn: int) -> int:
        """Where a reply begins."""
        own = located.begins(turn)
        at, prompt = self._prompt(located, turn)
        if prompt is not None:
            bare = PREFILLED_THOUGHT.sub("", prompt)
            for written in dict.fromkeys((prompt, bare, bare.rstrip())):
                if written and located.text.startswith(written, at):
                    begin = self._past_empty_thought(located, at + len(written), own)
                    if begin >= own or located.calls(turn) or self._prompts(located, turn, at, written):
                        return begin
                    break
        opened = THOUGHT_BEGINS.search(located.text[max(0, own - 64) : own]) if located.thinks(turn) else None
        return own if opened is None else max(0, own - 64) + opened.start()

    def _past_empty_thought(self, located: Located, begin: int, own: int) -> int:
        """Past a thought without a word, with the white space after it: whose that is, the text does not tell."""
        text = located.text
        empty = EMPTY_THOUGHT.match(text, begin)
        if empty is None and THOUGHT_BEGINS.search(text[max(0, begin - 64) : begin]):
            empty = THOUGHT_ENDS.match(text, begin)
        return empty.end() if empty is not None and empty.start() < own else begin

    def _prompt(self, located: Located, turn: int) -> tuple[int, str | None]:
        """What the template writes after the last mark before a turn when it is asked for a reply, and where."""
        try:
            prefix = located.rendered(located.marked[:turn], add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, LookupError):  # it may refuse a part of what it takes as a whole
            return 0, None
        last = max(prefix.places, key=lambda number: prefix.places[number][-1], default=None)
        if last is None:
            return 0, prefix.text
        place = located.place_as_in(prefix, last)
        return (0, None) if place is None else (place, prefix.text[prefix.places[last][-1] :])

    def _prompts(self, located: Located, turn: int, at: int, prompt: str) -> bool:
        """Whether the prompt is more than what the template writes before a turn that it is not asked for."""
        try:
            unasked = located.rendered(located.marked[:turn])
        except (TemplateError, TypeError, ValueError, LookupError):
            return True
        last = max(unasked.places, key=lambda number: unasked.places[number][-1], default=None)
        place = 0 if last is None else located.place_as_in(unasked, last)
        if place != at:
            return True
        return not unasked.text[0 if last is None else unasked.places[last][-1] :].startswith(prompt)

    def _end(self, located: Located, last: int) -> int:
        """Where a reply ends whose last mark this is, its end-of-turn token included."""
        text, said, limit, turn = located.text, located.ends(last), located.limit(last), located.sites[last].turn
        whole = located.is_whole(last) and not located.calls(turn)
        run = self._run.match(text, said, limit) if whole else None
        ended = None if run is None else self._first_end(text, run.start(), run.end())
        if ended is not None:
            return ended
        closed = self._closed(located, last, limit)
        ended = self._first_end(text, said, closed)
        if ended is not None:
            return ended
        if not whole:
            return max(said, len(text[:closed].rstrip()))
        run = self._run.match(text, said, closed)
        return said if run is None else run.end()

    def _first_end(self, text: str, start: int, end: int) -> int | None:
        """Where the first token ends that ends a turn."""
        return next((token.end() for token in self._token.finditer(text, start, end) if token[0] in self._ends), None)

    def _closed(self, located: Located, last: int, limit: int) -> int:
        """Up to where the text after a reply is the turn's own: what it would be if nothing followed."""
        text, turn, at = located.text, located.sites[last].turn, located.place(last)
        if at is None or turn + 1 == len(located.messages):
            return limit
        try:
            alone = located.rendered(located.marked[: turn + 1])
        except (TemplateError, TypeError, ValueError, LookupError):
            return limit
        if last not in alone.places:
            return limit
        closed = at + common_prefix(text[at:limit], alone.text[alone.places[last][0] :])
        for token in self._token.finditer(text, max(0, closed - self._longest_token), limit):
            if token.start() < closed < token.end():
                return token.start()
        return closed

    def write(
        self, messages: list[Turn], variables: dict[str, Any], *, add_generation_prompt: bool = False, room: int = 0
    ) -> str:
        """What the template writes of turns.

        Raises:
            TextTooLong: It is longer than the limit and `room`.
            Exception: Whatever the template raises.
        """
        blocks: list[str] = []
        size, most = 0, self._most_characters + room
        # Each message is copied: what a template sees of one rendering must not reach the next.
        seen = [dict(message) for message in messages]
        context = self._template.new_context(
            {
                "documents": None,
                **self._variables,
                **variables,
                "messages": seen,
                "add_generation_prompt": add_generation_prompt,
            }
        )
        written = self._template.root_render_func(context)
        while some := list(itertools.islice(written, BLOCKS_AT_ONCE)):
            size += sum(map(len, some))
            if size > most:
                raise TextTooLong
            blocks += some
        return "".join(blocks)


def _as_the_row_names(left_out: set[str], messages: list[Turn]) -> set[str]:
    """Names of fields as a row has them: a thought is carried in the field that the template reads."""
    own = {name for name in REASONING_FIELDS for turn in messages if turn.get(name)}
    renamed = left_out & set(REASONING_FIELDS) - own if own else set()
    return left_out - renamed | own if renamed else left_out
