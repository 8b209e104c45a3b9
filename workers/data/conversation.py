"""Turn a row into what training sees of it, or into the reason why it can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spice_rows.conversation import EVERY_REPLY, Conversation, RowRefused, Wanted, is_unicode, read_row
from workers.data.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spice_rows.shape import Shape

__all__ = ["EVERY_REPLY", "Conversation", "Wanted", "is_unicode", "to_conversation"]


def to_conversation(values: Mapping[str, Any], shape: Shape, wanted: Wanted = EVERY_REPLY) -> Conversation | Reason:
    """What a row says, as `spice_rows.conversation.read_row` has it, or the reason why it can't be used."""
    try:
        return read_row(values, shape, wanted)
    except RowRefused as refused:
        return Reason(refused.reason)
