"""Statements about datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.db.tables import Dataset
from app.http.lists import listed

if TYPE_CHECKING:
    from sqlalchemy import Select


def datasets(*, uri: str | None = None, **filters: Any) -> Select[Dataset]:  # noqa: ANN401 - as for `listed`
    """Datasets for which all that is given holds, newest first.

    Args:
        uri: As it was registered.
        **filters: As for `app.http.lists.listed`.
    """
    statement = listed(Dataset, **filters)
    return statement if uri is None else statement.where(Dataset.uri == uri)
