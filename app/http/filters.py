"""Query parameters that filter lists."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from app.core.contracts.schema import Metadata, Text
from app.core.db.tables import State  # noqa: TC001 - FastAPI reads the annotations
from app.http.problems import FieldError, InvalidRequest, field_error

METADATA = "metadata."
ID_PREFIX = "^[0-9a-f]{1,8}(-?[0-9a-f]{1,12})*-?$"
_METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters of a list; a row must meet all of them.

    Attributes:
        states: The row's state is one of these; empty allows every state.
        name: The row's whole name.
        name_prefix: The beginning of the row's name.
        metadata: Entries that the row's metadata must have.
        created_after: The row is younger.
        created_before: The row is older.
        id_prefix: Hexadecimal digits that the row's id begins with.
    """

    states: tuple[State, ...]
    name: str | None
    name_prefix: str | None
    metadata: dict[str, str]
    created_after: AwareDatetime | None
    created_before: AwareDatetime | None
    id_prefix: str | None


@dataclass(frozen=True, slots=True)
class DatasetFilters:
    """Filters by the dataset that a job reads.

    Attributes:
        dataset_id: The id in its request.
        dataset_uri: The URI in its request.
    """

    dataset_id: uuid.UUID | None
    dataset_uri: str | None


async def _filters(
    request: Request,
    state: Annotated[list[State], Query(description="Only rows in one of these states.")] = [],  # noqa: B006 - not changed
    name: Annotated[Text | None, Query(description="Only rows of this name.")] = None,
    name_prefix: Annotated[Text | None, Query(description="Only rows whose names begin with this.")] = None,
    created_after: Annotated[AwareDatetime | None, Query(description="Only rows made after this time.")] = None,
    created_before: Annotated[AwareDatetime | None, Query(description="Only rows made before this time.")] = None,
    id_prefix: Annotated[
        str | None,
        Query(description="Only rows whose ids begin with this, as in `3ed80b50`.", pattern=ID_PREFIX, max_length=36),
    ] = None,
) -> Filters:
    return Filters(tuple(state), name, name_prefix, _metadata(request), created_after, created_before, id_prefix)


def _metadata(request: Request) -> dict[str, str]:
    """The parameters `metadata.KEY=VALUE`, which OpenAPI can't describe.

    Raises:
        InvalidRequest: A key or value breaks the limits of metadata.
    """
    given = [(key, value) for key, value in request.query_params.multi_items() if key.startswith(METADATA)]
    for key, times in Counter(key for key, _ in given).items():
        if times > 1:
            raise InvalidRequest(FieldError(field=key, message=f"is given {times} times, but an entry has one value"))
    try:
        return _METADATA.validate_python({key.removeprefix(METADATA): value for key, value in given})
    except ValidationError as error:
        raise InvalidRequest(
            *(field_error({**item, "loc": ("query", "metadata", *item["loc"][:1])}) for item in error.errors())
        ) from error


async def _dataset_filters(
    dataset_id: Annotated[uuid.UUID | None, Query(description="Only jobs over this registered dataset.")] = None,
    dataset_uri: Annotated[Text | None, Query(description="Only jobs over the dataset at this URI.")] = None,
) -> DatasetFilters:
    return DatasetFilters(dataset_id, dataset_uri)


FiltersDep = Annotated[Filters, Depends(_filters)]
DatasetFiltersDep = Annotated[DatasetFilters, Depends(_dataset_filters)]

METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata.KEY",
            "in": "query",
            "schema": {"type": "string"},
            "description": "Only those with this entry in their metadata, as in `metadata.team=search`; repeatable, "
            "each KEY once.",
        }
    ]
}
