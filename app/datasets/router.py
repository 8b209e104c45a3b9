"""`/datasets`: register, look, preview."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Response, status

from app.datasets import service
from app.datasets.schemas import (
    EXAMPLE_DATASET,
    EXAMPLE_PREVIEW,
    EXAMPLE_REQUEST,
    DatasetRequest,
    DatasetResponse,
    PreviewResponse,
)
from app.dependencies import QueueDep, SessionDep, SettingsDep  # noqa: TC001
from app.job_request import PreviewRequest  # noqa: TC001
from app.openapi import example, problems
from app.problems import DatasetNotFound, InvalidRequest, PreviewNotFound

if TYPE_CHECKING:
    from app.db.tables import Preview

router = APIRouter(prefix="/datasets", tags=["datasets"])

POLL_AFTER_S = 2
NOT_FOUND = (DatasetNotFound, f"No dataset has the id {EXAMPLE_DATASET['id']}: register it with POST /datasets.")
UNKNOWN = dict.fromkeys(("rows", "bytes", "columns", "shape", "fingerprint", "finished_at"))


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Register a dataset",
    responses=example(202, "A worker will read it.", {**EXAMPLE_DATASET, **UNKNOWN, "state": "queued"})
    | problems((InvalidRequest, "uri: scheme 'ftp' is not among the allowed ones (file, https, s3)")),
)
def register(
    session: SessionDep,
    queue: QueueDep,
    settings: SettingsDep,
    response: Response,
    body: Annotated[DatasetRequest, Body(openapi_examples={"local": {"value": EXAMPLE_REQUEST}})],
) -> DatasetResponse:
    """Have a worker read a dataset: rows, columns, bytes and fingerprint, or why it can't be read."""
    dataset = service.register(session, queue, settings, body)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    response.headers["Retry-After"] = str(POLL_AFTER_S)
    return DatasetResponse.model_validate(dataset)


@router.get(
    "/{dataset_id}",
    summary="Look at a dataset",
    responses=example(200, "The dataset.", EXAMPLE_DATASET) | problems(NOT_FOUND),
)
def get(session: SessionDep, dataset_id: uuid.UUID, response: Response) -> DatasetResponse:
    """What a worker found at the dataset's URI."""
    dataset = service.find_dataset(session, dataset_id)
    if not dataset.state.final:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return DatasetResponse.model_validate(dataset)


@router.post(
    "/{dataset_id}/previews",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Preview rows as the model will read them",
    responses=example(202, "A worker will read them.", {**EXAMPLE_PREVIEW, "state": "queued", "rows": None})
    | problems(NOT_FOUND, (InvalidRequest, "model.uri: /models/smollm2 is not a file:// URI")),
)
def preview(
    session: SessionDep,
    queue: QueueDep,
    settings: SettingsDep,
    response: Response,
    dataset_id: uuid.UUID,
    body: Annotated[
        PreviewRequest, Body(openapi_examples={"smollm2": {"value": {"model": {"uri": "file:///models/smollm2"}}}})
    ],
) -> PreviewResponse:
    """Have a worker turn a few rows into tokens with the model's own chat template: each one learned or masked."""
    asked = service.preview(session, queue, settings, dataset_id, body)
    response.headers["Location"] = f"/datasets/{dataset_id}/previews/{asked.id}"
    response.headers["Retry-After"] = str(POLL_AFTER_S)
    return _preview_response(asked)


@router.get(
    "/{dataset_id}/previews/{preview_id}",
    summary="Look at a preview",
    responses=example(200, "The preview.", EXAMPLE_PREVIEW)
    | problems(
        NOT_FOUND,
        (PreviewNotFound, f"The dataset has no preview {EXAMPLE_PREVIEW['id']}: ask for one with POST."),
    ),
)
def get_preview(
    session: SessionDep, dataset_id: uuid.UUID, preview_id: uuid.UUID, response: Response
) -> PreviewResponse:
    """The rows as tokens once a worker has read them, or why it could not."""
    found = service.find_preview(session, dataset_id, preview_id)
    if not found.state.final:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return _preview_response(found)


def _preview_response(preview: Preview) -> PreviewResponse:
    content = preview.content or {}
    return PreviewResponse.model_validate(
        {
            **preview.request,
            "id": preview.id,
            "dataset_id": preview.dataset_id,
            "state": preview.state,
            "shape": content.get("shape"),
            "rows": content.get("rows"),
            "error": preview.error,
            "created_at": preview.created_at,
            "finished_at": preview.finished_at,
        }
    )
