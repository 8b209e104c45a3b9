"""`/datasets`: register, list, look, change, delete, preview."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response, status

from app.core.contracts.job_request import PreviewRequest  # noqa: TC001
from app.core.contracts.schema import Changes, Page, Text
from app.core.db.tables import Dataset, Preview
from app.core.lifecycle.leases import Waiting
from app.datasets import service
from app.datasets.schemas import (
    EXAMPLE_DATASET,
    EXAMPLE_PREVIEW,
    EXAMPLE_REQUEST,
    DatasetRequest,
    DatasetResponse,
    PreviewResponse,
)
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import SessionDep, SettingsDep  # noqa: TC001
from app.http.filters import METADATA_PARAMETER, FiltersDep
from app.http.idempotency import Answer, OnceDep
from app.http.openapi import empty, example, problems
from app.http.paging import Cursor, Limit  # noqa: TC001
from app.http.problems import DatasetInUse, DatasetNotFound, InvalidRequest, PreviewNotFound, QuotaExceeded

router = APIRouter(prefix="/datasets", tags=["datasets"])

POLL_AFTER_S = 2
QUOTA_USED_UP = "datasets: 50 datasets, previews and estimates of the project are not read yet, and 50 may at once: ..."
NOT_FOUND = (DatasetNotFound, f"No dataset has the id {EXAMPLE_DATASET['id']}: register it with POST /datasets.")
UNKNOWN = dict.fromkeys(("rows", "bytes", "columns", "shape", "fingerprint", "sources", "finished_at"))


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=DatasetResponse,
    summary="Register a dataset",
    responses=example(202, "A worker will read it.", {**EXAMPLE_DATASET, **UNKNOWN, "state": "queued"})
    | problems(
        (QuotaExceeded, QUOTA_USED_UP),
        (InvalidRequest, "uri: scheme 'ftp' is not among the allowed ones (file, https, s3)"),
    ),
)
def register(
    settings: SettingsDep,
    once: OnceDep,
    body: Annotated[DatasetRequest, Body(openapi_examples={"local": {"value": EXAMPLE_REQUEST}})],
) -> Response:
    """Have a worker read a dataset: rows, columns, bytes and fingerprint, or why it can't be read."""

    def accepted(dataset: Dataset) -> Answer:
        return Answer(
            DatasetResponse.model_validate(dataset),
            status.HTTP_202_ACCEPTED,
            {"Location": f"/datasets/{dataset.id}", "Retry-After": str(POLL_AFTER_S)},
            queued=[Waiting(Dataset, dataset.id, dataset.dispatch)],
        )

    return once.answer(lambda session: service.register(session, settings, body), accepted)


@router.get(
    "",
    summary="List datasets",
    openapi_extra=METADATA_PARAMETER,
    responses=example(200, "A page of datasets.", {"items": [EXAMPLE_DATASET], "next_cursor": None})
    | problems((InvalidRequest, "cursor: is not a next_cursor that this service gave")),
)
def list_datasets(
    session: SessionDep,
    settings: SettingsDep,
    filters: FiltersDep,
    validators: ValidatorsDep,
    uri: Annotated[Text | None, Query(description="Only those at this URI.")] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Page[DatasetResponse]:
    """Datasets, newest first, for which all filters hold."""
    datasets, next_cursor = service.list_datasets(
        session, filters, uri, limit=limit or settings.page_size, cursor=cursor
    )
    validators.polled(*datasets, also=[next_cursor])
    return Page(items=[DatasetResponse.model_validate(dataset) for dataset in datasets], next_cursor=next_cursor)


@router.get(
    "/{dataset_id}",
    summary="Look at a dataset",
    responses=example(200, "The dataset.", EXAMPLE_DATASET) | problems(NOT_FOUND),
)
def get(session: SessionDep, dataset_id: uuid.UUID, response: Response, validators: ValidatorsDep) -> DatasetResponse:
    """What a worker found at the dataset's URI."""
    dataset = service.find_dataset(session, dataset_id)
    validators.polled(dataset)
    if not dataset.state.final:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return DatasetResponse.model_validate(dataset)


@router.patch(
    "/{dataset_id}",
    summary="Change name, metadata or expiry",
    responses=example(200, "The dataset.", EXAMPLE_DATASET)
    | problems(NOT_FOUND, (InvalidRequest, "expires_at: must lie in the future")),
)
def change(
    session: SessionDep,
    dataset_id: uuid.UUID,
    body: Annotated[Changes, Body(openapi_examples={"rename": {"value": {"name": "tickets", "expires_at": None}}})],
) -> DatasetResponse:
    """Change what a dataset is called and how long it is kept; what is left out stays as it is."""
    return DatasetResponse.model_validate(service.change(session, dataset_id, body))


@router.delete(
    "/{dataset_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Forget a dataset",
    responses=empty(204, "It is gone; the file that it names stays.")
    | problems(NOT_FOUND, (DatasetInUse, f"Dataset {EXAMPLE_DATASET['id']} is being read: wait for its jobs.")),
)
def delete(session: SessionDep, dataset_id: uuid.UUID) -> None:
    """Forget a dataset that nothing reads. The file stays, and so do the jobs that have read it."""
    service.delete(session, dataset_id)


@router.post(
    "/{dataset_id}/previews",
    response_model=PreviewResponse,
    status_code=status.HTTP_202_ACCEPTED,
    summary="Preview rows as the model will read them",
    responses=example(202, "A worker will read them.", {**EXAMPLE_PREVIEW, "state": "queued", "rows": None})
    | problems(
        NOT_FOUND,
        (QuotaExceeded, QUOTA_USED_UP),
        (InvalidRequest, "model.uri: /models/smollm2 is not a file:// URI"),
    ),
)
def preview(
    settings: SettingsDep,
    once: OnceDep,
    dataset_id: uuid.UUID,
    body: Annotated[
        PreviewRequest, Body(openapi_examples={"smollm2": {"value": {"model": {"uri": "file:///models/smollm2"}}}})
    ],
) -> Response:
    """Have a worker turn a few rows into tokens with the model's own chat template: each one learned or masked."""

    def accepted(asked: Preview) -> Answer:
        return Answer(
            _preview_response(asked),
            status.HTTP_202_ACCEPTED,
            {"Location": f"/datasets/{dataset_id}/previews/{asked.id}", "Retry-After": str(POLL_AFTER_S)},
            queued=[Waiting(Preview, asked.id, asked.dispatch)],
        )

    return once.answer(lambda session: service.preview(session, settings, dataset_id, body), accepted)


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
        },
        extra="ignore",
    )
