"""The picked rows as text to look through: best pick first, each row cut to what a page can show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spice_rows.conversation import REASONING_FIELDS, Turn
from workers.data.conversation import Conversation, to_conversation
from workers.data.formats import BadRecord, iter_records
from workers.data.rejection import Reason
from workers.data.sources import shown_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from app.core.settings import Settings
    from spice_rows.conversation import Wanted
    from spice_rows.shape import Shape
    from workers.data.fetch import Snapshot
    from workers.data.formats import Record

TEXT_SHOWN = 4000
"""Characters of a row that are kept: about what the default max_length lets the model read."""


def write_excerpts(
    picked: Snapshot,
    shape: Shape,
    learned: Wanted,
    ranked: Iterable[dict[str, Any]],
    destination: Path,
    settings: Settings,
    source_column: str | None = None,
) -> None:
    """Write one JSON line a pick, in the order of picking.

    The rows are read once in file order, spilled to a file beside, and copied from there by rank: memory holds two
    numbers a pick.

    Args:
        picked: The picked rows alone, in file order, as `workers.data.export.write_rows` left them.
        shape: Where in a row its conversation is.
        learned: What of it was learned: of a pair, which side.
        ranked: For each row of `picked`, what else its line is to say; its `rank` decides the place.
        destination: The file; it must not exist.
        settings: The limits of reading.
        source_column: The column that names where a row is from, for its line to say; None where there is none.
    """
    wanted = frozenset({*shape.columns.values(), *([source_column] if source_column else [])})
    spilled = destination.with_name(f"{destination.name}.unordered")
    spans: list[tuple[int, int, int]] = []
    try:
        with spilled.open("wb") as file:
            records = iter_records(picked, settings, wanted)
            for record, facts in zip(records, ranked, strict=True):
                read = (
                    record.reason if isinstance(record, BadRecord) else to_conversation(record.values, shape, learned)
                )
                messages = [] if isinstance(read, Reason) else _shown(read)
                named = {} if source_column is None else {"source": _source(record, source_column)}
                said = {**facts, **named, **_cut(messages)}
                line = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
                spans.append((facts["rank"], file.tell(), len(line) + 1))
                file.write(line + b"\n")
        with spilled.open("rb") as file, destination.open("wb") as out:
            for _, start, length in sorted(spans):
                file.seek(start)
                out.write(file.read(length))
    finally:
        spilled.unlink(missing_ok=True)


def _source(record: Record | BadRecord, column: str) -> str | None:
    return None if isinstance(record, BadRecord) else shown_source(record.values.get(column))


def _shown(conversation: Conversation) -> list[dict[str, str]]:
    """The turns as text: what is thought and what is called stand before and after what is said."""
    if conversation.text is not None:
        return [{"role": "text", "content": conversation.text}]
    return [{"role": turn["role"], "content": _text_of(turn)} for turn in conversation.messages]


def _text_of(turn: Turn) -> str:
    thought = "".join(turn[name] for name in REASONING_FIELDS if isinstance(turn.get(name), str))
    content = turn.get("content")
    parts = [
        f"<think>{thought}</think>" if thought else "",
        content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False),
        *(json.dumps(call, ensure_ascii=False) for call in turn.get("tool_calls", ())),
    ]
    return "\n".join(part for part in parts if part)


def _cut(messages: Sequence[Any]) -> dict[str, Any]:
    """A conversation within `TEXT_SHOWN` characters, the first turns first."""
    left, kept = TEXT_SHOWN, []
    for message in messages:
        if left == 0:
            break
        kept.append({"role": message["role"], "content": message["content"][:left]})
        left -= len(kept[-1]["content"])
    whole = sum(len(message["content"]) for message in messages)
    return {"messages": kept, "cut": whole > TEXT_SHOWN}
