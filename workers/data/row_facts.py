"""What is told of rows besides their tokens: their text, for telling equal ones; their source; their options."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.data.conversation import Conversation, to_conversation
from workers.data.formats import BadRecord, iter_records
from workers.data.rejection import Reason
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.core.settings import Settings
    from spice_rows.conversation import Wanted
    from spice_rows.shape import Shape
    from workers.data.fetch import Snapshot

ASK_EVERY_ROWS = 1024


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row that can be read.

    Attributes:
        row: Its number in the file.
        conversation: What it says.
        text: Digest of its normalised text.
        source: The value of its source column, as text; None where there is none.
        options: The texts of its options column; None where that holds no list of texts.
    """

    row: int
    conversation: Conversation
    text: bytes
    source: str | None
    options: tuple[str, ...] | None


def row_facts(
    snapshot: Snapshot,
    shape: Shape,
    wanted: Wanted,
    settings: Settings,
    *,
    source_column: str | None = None,
    options_column: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[RowFacts]:
    """The rows of a dataset that hold a conversation of which something is wanted, in file order.

    Raises:
        Stopped: `should_stop` said so.
    """
    besides = {column for column in (source_column, options_column) if column is not None}
    for record in iter_records(snapshot, settings, frozenset({*shape.columns.values(), *besides})):
        if record.row % ASK_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        if isinstance(record, BadRecord):
            continue
        conversation = to_conversation(record.values, shape, wanted)
        if isinstance(conversation, Reason):
            continue
        source = None if source_column is None else record.values.get(source_column)
        options = None if options_column is None else record.values.get(options_column)
        yield RowFacts(
            record.row,
            conversation,
            normalised_digest(conversation),
            None if source is None else str(source),
            tuple(options) if isinstance(options, list) and all(isinstance(one, str) for one in options) else None,
        )


def normalised_digest(conversation: Conversation) -> bytes:
    """Digest of a conversation's text: equal for rows that differ in case, white space or Unicode form alone."""
    texts = _texts(conversation)
    normalised = (" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)
    return hashlib.sha256("\0".join(normalised).encode()).digest()[:16]


def _texts(value: object) -> Iterator[str]:
    """All that a conversation says, or a value of JSON: its texts, names and numbers."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for name in sorted(value):
            yield name
            yield from _texts(value[name])
    elif isinstance(value, Conversation):
        yield from _texts([value.text, value.messages, value.tools, value.kwargs, value.rejected])
    elif value is not None:
        yield str(value)
