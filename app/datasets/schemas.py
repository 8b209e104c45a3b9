"""Bodies of the dataset endpoints."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from pydantic import Field

from app.db.tables import State
from app.problems import ProblemDetails
from app.schema import Metadata, Name, Request, Response, Text
from app.uris import Format

EXAMPLE_REQUEST: dict[str, Any] = {"uri": "file:///data/train.jsonl", "name": "support tickets, October"}
EXAMPLE_DATASET: dict[str, Any] = {
    "id": "3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11",
    "uri": "file:///data/train.jsonl",
    "format": None,
    "name": "support tickets, October",
    "metadata": {},
    "state": "succeeded",
    "rows": 100000,
    "bytes": 73400320,
    "columns": ["instruction", "input", "output"],
    "shape": "alpaca",
    "fingerprint": "sha256:9b74c9897bac770ffc029102a200c5de0c2f8a4f6c4e0b7b3c1d8f2a6f4f6f1a",
    "error": None,
    "created_at": "2026-11-24T03:00:00Z",
    "finished_at": "2026-11-24T03:00:02Z",
}


class DatasetRequest(Request):
    """A dataset to register."""

    uri: Text = Field(
        description="`file://` (inside the allowed roots), `https://` or `s3://`; JSONL, JSON, CSV or Parquet, "
        "each also with .gz or .zst."
    )
    format: Format | None = Field(default=None, description="Overrides what the URI's suffix says.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class DatasetResponse(Response):
    """A registered dataset. Rows, bytes, columns, shape and fingerprint are there once `state` is succeeded."""

    id: uuid.UUID
    uri: str
    format: Format | None
    name: str | None
    metadata: Metadata = Field(validation_alias="metadata_")
    state: State
    rows: int | None = Field(description="Rows in the file, usable or not.")
    bytes: int | None = Field(description="Size of the file as stored.")
    columns: list[str] | None
    shape: str | None = Field(description="How rows are read: prompt_response, alpaca or messages.")
    fingerprint: str | None = Field(description="SHA-256 of the file as stored.")
    error: ProblemDetails | None
    created_at: datetime
    finished_at: datetime | None
