"""`/datasets`: register, look."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated

from fastapi import APIRouter, Body, Response, status

from app.datasets import service
from app.datasets.schemas import EXAMPLE_DATASET, EXAMPLE_REQUEST, DatasetRequest, DatasetResponse
from app.dependencies import QueueDep, SessionDep, SettingsDep  # noqa: TC001
from app.openapi import example, problems
from app.problems import DatasetNotFound, InvalidRequest

router = APIRouter(prefix="/datasets", tags=["datasets"])

POLL_AFTER_S = 2
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
    responses=example(200, "The dataset.", EXAMPLE_DATASET)
    | problems((DatasetNotFound, f"No dataset has the id {EXAMPLE_DATASET['id']}: register it with POST /datasets.")),
)
def get(session: SessionDep, dataset_id: uuid.UUID, response: Response) -> DatasetResponse:
    """What a worker found at the dataset's URI."""
    dataset = service.find_dataset(session, dataset_id)
    if not dataset.state.final:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return DatasetResponse.model_validate(dataset)
