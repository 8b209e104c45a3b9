"""Register datasets."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from app.db.leases import Waiting
from app.db.tables import Dataset
from app.problems import DatasetNotFound, FieldError, InvalidRequest
from app.uris import UriRefused, check_uri

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.datasets.schemas import DatasetRequest
    from app.queue import TaskQueue
    from app.settings import Settings


def register(session: Session, queue: TaskQueue, settings: Settings, request: DatasetRequest) -> Dataset:
    """Store a dataset and have a worker read it.

    Raises:
        InvalidRequest: The URI is not one that this service reads.
    """
    try:
        uri = check_uri(request.uri, settings, request.format)
    except UriRefused as refused:
        raise InvalidRequest(FieldError(field="uri", message=str(refused))) from refused
    dataset = Dataset(
        id=uuid.uuid4(),
        uri=uri.uri,
        format=request.format,
        name=request.name,
        metadata_=dict(request.metadata),
    )
    session.add(dataset)
    session.commit()
    queue.put_or_leave(Waiting(Dataset, dataset.id, dataset.dispatch))
    return dataset


def find_dataset(session: Session, dataset_id: uuid.UUID) -> Dataset:
    """A dataset by id; DatasetNotFound if there is none."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise DatasetNotFound(f"No dataset has the id {dataset_id}: register it with POST /datasets.")
    return dataset
