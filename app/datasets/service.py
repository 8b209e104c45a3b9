"""Register, list, change and delete datasets, and preview their rows."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

from app.core.db.scoping import project_of
from app.core.db.tables import Dataset, Preview
from app.core.lifecycle import deletion, quotas
from app.core.uris.datasets import UriRefused, check_uri
from app.core.uris.models import check_model_uri
from app.datasets import repository
from app.http.paging import page_of
from app.http.problems import DatasetInUse, DatasetNotFound, FieldError, InvalidRequest, PreviewNotFound, QuotaExceeded

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import PreviewRequest
    from app.core.contracts.schema import Changes
    from app.core.settings import Settings
    from app.core.uris.datasets import DatasetUri, Format
    from app.datasets.schemas import DatasetRequest
    from app.http.filters import Filters


def register(session: Session, settings: Settings, request: DatasetRequest) -> Dataset:
    """Store a dataset in the caller's transaction, for a worker to read it.

    Raises:
        InvalidRequest: The URI is not one that this service reads.
        QuotaExceeded: As many of the project's datasets, previews and estimates as may be are not read yet.
    """
    uris = _checked(session, settings, request)
    check_quota(session, settings)
    formats = [lost for uri in uris if (lost := _format_lost(uri, settings)) is not None]
    dataset = Dataset(
        id=uuid.uuid4(),
        uri=uris[0].uri,
        uris=None if request.uris is None else [uri.uri for uri in uris],
        format=request.format or next(iter(formats), None),
        name=request.name,
        metadata_=dict(request.metadata),
        expires_at=request.expires_at,
    )
    session.add(dataset)
    return dataset


def _checked(session: Session, settings: Settings, request: DatasetRequest) -> list[DatasetUri]:
    """The URIs as they are read.

    Raises:
        InvalidRequest: Some are none that this service reads.
    """
    found, errors = [], []
    for place, uri in enumerate(request.uris or (request.uri or "",)):
        try:
            found.append(check_uri(uri, settings, request.format, project_of(session)))
        except UriRefused as refused:
            errors.append(FieldError(field="uri" if request.uris is None else f"uris.{place}", message=str(refused)))
    if errors:
        raise InvalidRequest(*errors)
    return found


def _format_lost(uri: DatasetUri, settings: Settings) -> Format | None:
    """The format of a file whose own name does not tell it, as the name of the link did that the client wrote."""
    try:
        check_uri(uri.uri, settings)
    except UriRefused:
        return uri.format
    return None


def check_quota(session: Session, settings: Settings) -> None:
    """QuotaExceeded if as many of the project's datasets, previews and estimates as may be are not read yet."""
    excess = quotas.excess_of_reading(session, project_of(session), settings)
    if excess is not None:
        raise QuotaExceeded("datasets", excess.message, excess.limit)


def find_dataset(session: Session, dataset_id: uuid.UUID) -> Dataset:
    """A dataset by id; DatasetNotFound if there is none."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise DatasetNotFound(f"No dataset has the id {dataset_id}: register it with POST /datasets.")
    return dataset


def list_datasets(
    session: Session, filters: Filters, uri: str | None, *, limit: int, cursor: str | None
) -> tuple[list[Dataset], str | None]:
    """A page of datasets, newest first, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one that this service gave.
    """
    statement = repository.datasets(uri=uri, **asdict(filters))
    return page_of(session, statement, limit=limit, cursor=cursor)


def change(session: Session, dataset_id: uuid.UUID, changes: Changes) -> Dataset:
    """Set what the client sent of name, metadata and expiry; DatasetNotFound if there is no such dataset."""
    dataset = find_dataset(session, dataset_id)
    for name, value in changes.given().items():
        setattr(dataset, name, value)
    session.commit()
    session.refresh(dataset)
    return dataset


def delete(session: Session, dataset_id: uuid.UUID) -> None:
    """Forget a dataset and its previews; its file stays, and so do jobs that have read it.

    Raises:
        DatasetNotFound: There is no such dataset.
        DatasetInUse: A worker or an open job reads it.
    """
    find_dataset(session, dataset_id)
    if not deletion.delete_dataset(session, dataset_id):
        raise DatasetInUse(f"Dataset {dataset_id} is being read: wait for its jobs to end, or cancel them.")
    session.commit()


def preview(session: Session, settings: Settings, dataset_id: uuid.UUID, request: PreviewRequest) -> Preview:
    """Store a preview in the caller's transaction, for a worker to read rows of a dataset as a model would.

    Raises:
        DatasetNotFound: There is no such dataset.
        InvalidRequest: The model's URI is not one that this service reads.
        QuotaExceeded: As many of the project's datasets, previews and estimates as may be are not read yet.
    """
    dataset = find_dataset(session, dataset_id)
    try:
        check_model_uri(request.model.uri, settings)
    except UriRefused as refused:
        raise InvalidRequest(FieldError(field="model.uri", message=str(refused))) from refused
    check_quota(session, settings)
    asked = Preview(id=uuid.uuid4(), dataset_id=dataset.id, request=request.model_dump(mode="json"))
    session.add(asked)
    return asked


def find_preview(session: Session, dataset_id: uuid.UUID, preview_id: uuid.UUID) -> Preview:
    """A preview by id.

    Raises:
        DatasetNotFound: There is no such dataset.
        PreviewNotFound: It has no such preview.
    """
    dataset = find_dataset(session, dataset_id)
    preview = session.get(Preview, preview_id)
    if preview is None or preview.dataset_id != dataset.id:
        raise PreviewNotFound(f"The dataset has no preview {preview_id}: ask for one with POST.")
    return preview
