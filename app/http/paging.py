"""Pages of a list, newest first; the cursor of a page holds the last row of the page before."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Query
from sqlakeyset import BadBookmark, PageSerializationError, select_page, unserialize_bookmark

from app.http.problems import FieldError, InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

Row = TypeVar("Row")

Limit = Annotated[int | None, Query(ge=1, le=500, description="Items of a page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]


def page_of(
    session: Session, statement: Select[Row], *, limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """A page of a statement's rows, ordered by a time and an id, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one that this service gave.
    """
    page: Any = select_page(session, statement, per_page=limit, page=None if cursor is None else _checked(cursor))
    return [row[0] for row in page], page.paging.bookmark_next if page.paging.has_next else None


def _checked(cursor: str) -> str:
    """The cursor, checked for one time and one id, because its values go into a statement."""
    try:
        marker = unserialize_bookmark(cursor)
        place = marker.place
        valid = place is not None and [type(value) for value in place] == [datetime, uuid.UUID] and not marker.backwards
    except (BadBookmark, PageSerializationError, ValueError):
        valid = False
    if not valid:
        raise InvalidRequest(FieldError(field="cursor", message="is not a next_cursor that this service gave"))
    return cursor
