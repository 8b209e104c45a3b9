"""What is told of rows besides their tokens: their text, for telling equal ones; their source; their options."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.data.conversation import to_messages
from workers.data.formats import BadRecord, iter_records
from workers.data.rejection import Reason
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.core.settings import Settings
    from workers.data.conversation import Message
    from workers.data.fetch import Snapshot
    from workers.data.shapes import Shape

ASK_EVERY_ROWS = 1024


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row that can be read.

    Attributes:
        row: Its number in the file.
        messages: The conversation.
        text: Digest of its normalised text.
        source: The value of its source column, as text; None where there is none.
        options: The texts of its options column; None where that holds no list of texts.
    """

    row: int
    messages: Sequence[Message]
    text: bytes
    source: str | None
    options: tuple[str, ...] | None


def row_facts(
    snapshot: Snapshot,
    shape: Shape,
    settings: Settings,
    *,
    source_column: str | None = None,
    options_column: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[RowFacts]:
    """The rows of a dataset that hold a conversation, in file order.

    Raises:
        Stopped: `should_stop` said so.
    """
    besides = {column for column in (source_column, options_column) if column is not None}
    for record in iter_records(snapshot, settings, frozenset({*shape.columns.values(), *besides})):
        if record.row % ASK_EVERY_ROWS == 0 and should_stop():
            raise Stopped
        if isinstance(record, BadRecord):
            continue
        messages = to_messages(record.values, shape)
        if isinstance(messages, Reason):
            continue
        source = None if source_column is None else record.values.get(source_column)
        options = None if options_column is None else record.values.get(options_column)
        yield RowFacts(
            record.row,
            messages,
            normalised_digest(messages),
            None if source is None else str(source),
            tuple(options) if isinstance(options, list) and all(isinstance(one, str) for one in options) else None,
        )


def normalised_digest(messages: Sequence[Message]) -> bytes:
    """Digest of a conversation's text: equal for rows that differ in case, white space or Unicode form alone."""
    texts = (unicodedata.normalize("NFKC", message["content"]).casefold().split() for message in messages)
    return hashlib.sha256("\0".join(" ".join(words) for words in texts).encode()).digest()[:16]
