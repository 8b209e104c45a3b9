"""Bodies of the picked-rows endpoint."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field

from app.core.contracts.schema import Response
from app.results.schemas import JOB_ID

EXAMPLE_ROWS: dict[str, Any] = {
    "job_id": JOB_ID,
    "items": [
        {
            "rank": 1,
            "index": 812,
            "marginal_gain": 5.1,
            "epsilon": 0.0,
            "conflict": 0.0,
            "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
            "cut": False,
        }
    ],
    "searched": 1,
    "selected": 10000,
    "next_cursor": "182",
}


class Message(Response):
    """A turn."""

    role: str
    content: str


class PickedRow(Response):
    """A pick with its text."""

    rank: int = Field(description="From 1, in the order of picking.")
    index: int = Field(description="Row number in the dataset.")
    marginal_gain: float = Field(description="In nats.")
    epsilon: float = Field(description="In nats, at most 0.")
    conflict: float = Field(description="With the picks before it, in [0, 1].")
    file: str | None = Field(default=None, description="Of a dataset of many files, the one that the row is in.")
    messages: list[Message] = Field(description="The row as a conversation, cut to 4,000 characters.")
    cut: bool = Field(description="Whether text beyond those was left out.")


class PickedRows(Response):
    """A page of picked rows, best pick first."""

    job_id: uuid.UUID
    items: list[PickedRow] = Field(description="May be fewer than `limit`, even none, with more to come: see searched.")
    searched: int = Field(description="Rank up to which the rows have been looked through.")
    selected: int = Field(description="Rows in all.")
    next_cursor: str | None = Field(description="Send it as `cursor` to look on; null once all were looked through.")
