"""What requests and responses of every feature share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")
MAX_METADATA_ENTRIES = 64


def _storable(value: str) -> str:
    """A string that Postgres can keep; JSON can spell others."""
    if "\x00" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None
    return value


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(metadata) > MAX_METADATA_ENTRIES:
        raise ValueError(f"has {len(metadata)} entries, more than {MAX_METADATA_ENTRIES}")
    return metadata


def _ahead(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie before the year 10000 in UTC: use null for never") from None
    if moment <= datetime.now(UTC):
        raise ValueError("must lie in the future")
    return moment


Storable = AfterValidator(_storable)
"""The last annotation of a string, after its limits, so that these are told in characters."""
Text = Annotated[str, Storable]
Name = Annotated[str, Field(min_length=1, max_length=200), Storable]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64), Storable], Annotated[str, Field(max_length=1000), Storable]],
    AfterValidator(_small),
]
Expiry = Annotated[AwareDatetime, AfterValidator(_ahead)]


class Request(BaseModel):
    """A body that a client sends: an unknown field is an error, not a typo without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def optional(field: str) -> Callable[[dict[str, Any]], None]:
    """Tell in a schema that a field may be left out, where other fields of the request say what it is then."""

    def tell(schema: dict[str, Any]) -> None:
        needed = [name for name in schema.pop("required") if name != field]
        if needed:
            schema["required"] = needed

    return tell


class Changes(Request):
    """What can be changed of a job or a dataset; what is left out stays as it is."""

    name: Name | None = Field(default=None, description="null: no name.")
    metadata: Metadata = Field(default={}, description="Replaces all of the metadata.")
    expires_at: Expiry | None = Field(default=None, description="When it is deleted; null: never.")

    def given(self) -> dict[str, Any]:
        """The fields that the client sent, by the names of the tables' attributes."""
        names = {"metadata": "metadata_"}
        return {names.get(field, field): getattr(self, field) for field in self.model_fields_set}


class Response(BaseModel):
    """A body that the service sends."""

    model_config = ConfigDict(from_attributes=True)


class Page(Response, Generic[Item]):
    """A page of a list, newest first."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")


class Progress(Response):
    """How far the present stage is."""

    done: int
    total: int | None
    unit: str = Field(description="What is counted: bytes, rows, samples, windows or picks.")
    rate: float | None = Field(description="Units a second.")
    eta_s: float | None = Field(description="Seconds until the stage ends, at this rate.")
    tokens_per_s: float | None = Field(default=None, description="While gradients are computed: rows differ in length.")
