"""Bodies of the endpoints of files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from app.core.contracts.schema import Response

EXAMPLE_DIGEST = "9b74c9897bac770ffc029102a200c5de0c2f8a4f6c4e0b7b3c1d8f2a6f4f6f1a"
EXAMPLE_UPLOAD: dict[str, Any] = {
    "id": EXAMPLE_DIGEST,
    "uri": f"upload://5b1ce000-0000-4000-8000-000000000000/{EXAMPLE_DIGEST}/tickets.jsonl",
    "name": "tickets.jsonl",
    "bytes": 95365,
    "uploaded_at": "2026-11-24T03:00:00Z",
}
EXAMPLE_FILES: dict[str, Any] = {
    "datasets": [{"uri": "file:///data/train.jsonl", "name": "data/train.jsonl", "bytes": 95365}],
    "models": [{"uri": "file:///models/smollm2", "name": "models/smollm2", "bytes": None}],
    "uploads": [EXAMPLE_UPLOAD],
    "complete": True,
}


class FileResponse(Response):
    """A file or a directory that a job may name."""

    uri: str
    name: str = Field(description="Its path from the allowed directory on, that directory's own name first.")
    bytes: int | None = Field(description="Size of the file; null for a directory.")


class UploadResponse(Response):
    """An uploaded file of the project."""

    id: str = Field(description="SHA-256 of the content.")
    uri: str = Field(description="As `dataset.uri` names it.")
    name: str = Field(description="Its name, of which letters, digits, dots, dashes and underscores are kept.")
    bytes: int
    uploaded_at: datetime


class FilesResponse(Response):
    """Datasets and models that `file://` URIs may name, and uploaded files."""

    datasets: list[FileResponse]
    models: list[FileResponse] = Field(description="Directories of saved models, and GGUF files.")
    uploads: list[UploadResponse] = Field(description="The project's uploaded files, newest first.")
    complete: bool = Field(description="Whether that is all: at most 200 of each are told, no deeper than 4 levels.")
