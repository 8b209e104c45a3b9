"""Bodies of the dataset endpoints."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import Field, model_validator

from app.core.contracts.dataset_request import Columns
from app.core.contracts.model_request import ModelRef
from app.core.contracts.schema import Expiry, Metadata, Name, Request, Response, Text
from app.core.db.tables import State
from app.core.uris.datasets import Format
from app.http.problems import ProblemDetails

EXAMPLE_REQUEST: dict[str, Any] = {"uri": "file:///data/train.jsonl", "name": "support tickets, October"}
EXAMPLE_DATASET: dict[str, Any] = {
    "id": "3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11",
    "uri": "file:///data/train.jsonl",
    "uris": None,
    "format": None,
    "name": "support tickets, October",
    "metadata": {},
    "state": "succeeded",
    "rows": 100000,
    "bytes": 73400320,
    "columns": ["instruction", "input", "output", "domain"],
    "shape": "alpaca",
    "fingerprint": "sha256:9b74c9897bac770ffc029102a200c5de0c2f8a4f6c4e0b7b3c1d8f2a6f4f6f1a",
    "sources": {"domain": {"code": 61000, "chat": 39000}},
    "error": None,
    "created_at": "2026-11-24T03:00:00Z",
    "finished_at": "2026-11-24T03:00:02Z",
    "updated_at": "2026-11-24T03:00:02Z",
    "expires_at": None,
}


class DatasetRequest(Request):
    """A dataset to register."""

    uri: Text | None = Field(
        default=None,
        description="`file://` (inside the allowed roots), `https://` or `s3://`; JSONL, JSON, CSV or Parquet, "
        "each also with .gz or .zst. `file://` and `s3://` may name a directory (with a slash at its end) or a pattern "
        "with `*`; `hf://datasets/org/name@commit` or `.../config` a dataset on the hub.",
    )
    uris: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Many of them instead, in the order in which their rows are numbered.",
    )
    format: Format | None = Field(default=None, description="Overrides what the URI's suffix says.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    expires_at: Expiry | None = Field(
        default=None, description="When the dataset is forgotten, if nothing reads it then; the file stays."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.uri is None) == (self.uris is None):
            raise ValueError("must have either uri or uris")
        return self


class DatasetResponse(Response):
    """A registered dataset. Rows, bytes, columns, shape and fingerprint are there once `state` is succeeded."""

    id: uuid.UUID
    uri: str = Field(description="Of many, the first.")
    uris: list[str] | None = Field(description="All of them, if many were registered.")
    format: Format | None
    name: str | None
    metadata: Metadata = Field(validation_alias="metadata_")
    state: State
    rows: int | None = Field(description="Rows in the file, usable or not.")
    bytes: int | None = Field(description="Size of the file as stored.")
    columns: list[str] | None
    shape: str | None = Field(description="How rows are read: prompt_response, alpaca or messages.")
    fingerprint: str | None = Field(description="SHA-256 of the file as stored.")
    sources: dict[str, dict[str, int]] | None = Field(
        description="Rows by value of each column that may name sources: at most 100 values, none longer than 100 "
        "characters. `selection.constraints.sources` is held against them before a job is made."
    )
    error: ProblemDetails | None
    created_at: datetime
    finished_at: datetime | None
    updated_at: datetime = Field(description="When anything of this was last changed.")
    expires_at: datetime | None = Field(description="When it is deleted, if nothing reads it then; null: never.")


EXAMPLE_PREVIEW: dict[str, Any] = {
    "id": "0c0f3f7e-53a4-4c5b-9a4e-6a1a4a1f9b21",
    "dataset_id": EXAMPLE_DATASET["id"],
    "state": "succeeded",
    "model": {"uri": "file:///models/smollm2", "dtype": "float32", "max_length": 512},
    "columns": None,
    "first_row": 0,
    "shape": "alpaca",
    "rows": [
        {
            "row": 0,
            "rejected": None,
            "tokens": 9,
            "learned_tokens": 2,
            "truncated": False,
            "pieces": [
                "<|im_start|>",
                "user",
                "\n",
                "2+2?",
                "<|im_end|>",
                "\n",
                "<|im_start|>assistant\n",
                "4",
                "<|im_end|>",
            ],
            "learned": [False, False, False, False, False, False, False, True, True],
        },
        {"row": 1, "rejected": "empty_response"},
    ],
    "error": None,
    "created_at": "2026-11-24T03:00:03Z",
    "finished_at": "2026-11-24T03:00:04Z",
}


class PreviewRow(Response):
    """A row as the model reads it."""

    row: int
    rejected: str | None = Field(description="Why the row can't be used; all else is then left out.")
    message: str | None = Field(default=None, description="What the chat template says of a row that it refuses.")
    ignored: list[str] = Field(default=[], description="Fields that the row has and nothing reads.")
    tokens: int | None = Field(default=None, description="Tokens that the model reads of it.")
    learned_tokens: int | None = Field(default=None, description="Tokens that carry loss.")
    truncated: bool | None = Field(default=None, description="Whether response tokens beyond max_length are cut.")
    pieces: list[str] = Field(
        default=[],
        description="Text of each token, at most 1,024 of them; joined, they are the text that the chat template "
        "writes. A token that continues a character has an empty piece.",
    )
    learned: list[bool] = Field(default=[], description="Whether the token carries loss, one for each piece.")


class PreviewResponse(Response):
    """Rows of a dataset as a model will read them; `rows` is there once `state` is succeeded."""

    id: uuid.UUID
    dataset_id: uuid.UUID
    state: State
    model: ModelRef
    columns: Columns | None
    first_row: int
    shape: str | None = Field(description="How rows are read: prompt_response, alpaca or messages.")
    rows: list[PreviewRow] | None
    error: ProblemDetails | None
    created_at: datetime
    finished_at: datetime | None
