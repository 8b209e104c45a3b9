"""Keep uploaded files: below the project's prefix of the artifact store, named by content, within limits."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.db.scoping import project_of
from app.core.lifecycle import quotas
from app.core.lifecycle.upload_use import is_read
from app.core.storage import UPLOADS, StorageFailed, upload_prefix, uploads_prefix
from app.core.uris.datasets import UriRefused, check_file_name
from app.core.uris.uploads import Upload, clean_name, uploads_in
from app.files.content import fault_of
from app.http.problems import (
    FieldError,
    InvalidRequest,
    TooLargeForQuota,
    Unavailable,
    UploadInUse,
    UploadNotFound,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.settings import Settings
    from app.core.storage import ArtifactStore, Stored

MOST_TOLD = 200
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """An uploaded file that is there.

    Attributes:
        upload: Which it is.
        bytes: Its size.
        uploaded_at: When it was last uploaded.
    """

    upload: Upload
    bytes: int
    uploaded_at: datetime

    @property
    def id(self) -> str:
        """SHA-256 of the content."""
        return self.upload.digest

    @property
    def uri(self) -> str:
        """As a job names it."""
        return self.upload.uri

    @property
    def name(self) -> str:
        """Its name."""
        return self.upload.name


class Incoming:
    """A file that arrives: its bytes on the disk, beside the place that they are moved to where there is one."""

    def __init__(self, name: str, directory: Path) -> None:
        """Begin an empty file.

        Args:
            name: What it will be called.
            directory: Where to write it until it is whole.
        """
        self.name = name
        self.size = 0
        self.head = b""
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self.path = directory / f".incoming-{secrets.token_hex(8)}"
        self._file = self.path.open("xb")

    def take(self, chunk: bytes) -> bool:
        """Hold the next bytes in memory; whether it is time to `flush` them."""
        self._buffer += chunk
        return len(self._buffer) >= BUFFER_BYTES

    def flush(self) -> None:
        """Write to the disk what is held."""
        self._file.write(self._buffer)
        self._hash.update(self._buffer)
        self.head = self.head or bytes(self._buffer[:BUFFER_BYTES])
        self.size += len(self._buffer)
        self._buffer.clear()

    def complete(self) -> str:
        """Write the rest to the disk, and close; SHA-256 of the whole content."""
        self.flush()
        self._file.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Delete the file, unless it was moved away."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def begin(session: Session, settings: Settings, artifacts: ArtifactStore, name: str, length: int) -> Incoming:
    """A place for a file that is about to arrive.

    Args:
        session: Of the project that uploads it.
        settings: The limits.
        artifacts: Where files are kept.
        name: What the client calls it.
        length: Bytes that the client says will come; 0 if it does not say.

    Raises:
        InvalidRequest: No file of this name can be a dataset.
        TooLargeForQuota: So many bytes exceed the project's quota.
        Unavailable: It can't be written.
    """
    cleaned = clean_name(name)
    if settings.upload_max_bytes == 0:
        message = "uploads are closed here (SPICE_UPLOAD_MAX_BYTES is 0): name a dataset by its URI"
        raise InvalidRequest(FieldError(field="body", message=message))
    try:
        check_file_name(cleaned)
    except UriRefused as refused:
        raise InvalidRequest(FieldError(field="name", message=str(refused))) from refused
    there = listed(session, artifacts)
    if not any((one.name, one.bytes) == (cleaned, length) for one in there):  # it may be there already: see `keep`
        _check_quota(session, settings, sum(one.bytes for one in there), length)
    session.rollback()  # no transaction stays open while the file arrives
    place = settings.artifacts_path  # beside its last place, where that is a directory: the file is then only renamed
    directory = Path(tempfile.gettempdir()) if place is None else place / UPLOADS / str(project_of(session))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Incoming(cleaned, directory)
    except OSError as error:
        raise Unavailable(f"{directory} can't be written ({error.strerror}): free space there") from error


def keep(session: Session, settings: Settings, artifacts: ArtifactStore, incoming: Incoming) -> Kept:
    """Keep a file that has arrived whole; one that is there already is as new again.

    Raises:
        InvalidRequest: Its content is not what its name says.
        TooLargeForQuota: It exceeds the project's quota.
        Unavailable: The artifact store does not take it.
    """
    try:
        upload = Upload(project_of(session), incoming.complete(), incoming.name)
    except OSError as error:
        raise Unavailable(f"{incoming.path.parent} can't be written ({error.strerror}): free space there") from error
    fault = fault_of(incoming.name, incoming.head)
    if fault is not None:
        raise InvalidRequest(FieldError(field="body", message=fault))
    quotas.lock_uploads(session, upload.project_id)
    others = [one.bytes for one in listed(session, artifacts) if one.upload != upload]
    _check_quota(session, settings, sum(others), incoming.size)
    try:
        artifacts.put(upload.artifact, incoming.path)
        stored = artifacts.stat(upload.artifact)
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    session.commit()
    return Kept(upload, incoming.size, datetime.now(UTC) if stored is None else _at(stored))


def listed(session: Session, artifacts: ArtifactStore) -> list[Kept]:
    """The project's uploaded files, newest first.

    Raises:
        Unavailable: The artifact store does not answer.
    """
    stored = {one.name: one for one in _stored(session, artifacts)}
    kept = [
        Kept(upload, stored[upload.artifact].size, _at(stored[upload.artifact]))
        for upload in uploads_in(project_of(session), iter(stored))
    ]
    return sorted(kept, key=lambda one: (one.uploaded_at, one.uri), reverse=True)


def delete(session: Session, artifacts: ArtifactStore, digest: str) -> None:
    """Delete the uploaded file of this content, under every name that it has.

    Raises:
        UploadNotFound: The project has none.
        UploadInUse: Open work reads it.
        Unavailable: The artifact store does not answer.
    """
    found = [one for one in listed(session, artifacts) if one.id == digest]
    if not found:
        raise UploadNotFound(f"The project has no uploaded file {digest}: see GET /files.")
    for one in found:
        if is_read(session, one.uri):
            raise UploadInUse(f"{one.name} is read by a job or a proof that has not ended: cancel it, or wait.")
    try:
        artifacts.remove_all(upload_prefix(project_of(session), digest))
    except StorageFailed as error:
        raise Unavailable(str(error)) from error


def _at(stored: Stored) -> datetime:
    return datetime.fromtimestamp(stored.modified, UTC)


def _stored(session: Session, artifacts: ArtifactStore) -> list[Stored]:
    try:
        return list(artifacts.list(uploads_prefix(project_of(session))))
    except StorageFailed as error:
        raise Unavailable(str(error)) from error


def _check_quota(session: Session, settings: Settings, used: int, size: int) -> None:
    excess = quotas.excess_of_upload(session, project_of(session), settings, used, size)
    if excess is not None:
        raise TooLargeForQuota("body", excess.message, excess.limit)
