"""`/files`: datasets and models of the allowed directories, to choose from."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from app.core.contracts.schema import Response
from app.files.found import look
from app.http.dependencies import SettingsDep  # noqa: TC001 - FastAPI reads the annotations
from app.http.openapi import example

router = APIRouter(prefix="/files", tags=["datasets"])

EXAMPLE_FILES: dict[str, Any] = {
    "datasets": [{"uri": "file:///data/train.jsonl", "name": "data/train.jsonl", "bytes": 95365}],
    "models": [{"uri": "file:///models/smollm2", "name": "models/smollm2", "bytes": None}],
    "complete": True,
}


class FileResponse(Response):
    """A file or a directory that a job may name."""

    uri: str
    name: str = Field(description="Its path from the allowed directory on, that directory's own name first.")
    bytes: int | None = Field(description="Size of the file; null for a directory.")


class FilesResponse(Response):
    """Datasets and models that `file://` URIs may name."""

    datasets: list[FileResponse]
    models: list[FileResponse] = Field(description="Directories of saved models, and GGUF files.")
    complete: bool = Field(description="Whether that is all: at most 200 of each are told, no deeper than 4 levels.")


@router.get(
    "", summary="List datasets and models to choose from", responses=example(200, "What was found.", EXAMPLE_FILES)
)
def files(settings: SettingsDep) -> FilesResponse:
    """What lies in `SPICE_ALLOWED_ROOTS`, as this process sees them, without hidden files and links that lead out."""
    return FilesResponse.model_validate(look(settings))
