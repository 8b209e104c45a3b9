"""Files of a result as HTTP answers: streamed, with ETag and ranges, out of any artifact store."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.responses import FileResponse, MalformedRangeHeader
from starlette.responses import RangeNotSatisfiable as Unsatisfiable

from app.core.storage import StorageFailed, rows_name, subset_name
from app.core.storage.local import LocalArtifacts
from app.http.caching import made_by
from app.http.problems import RangeNotSatisfiable, RowsGone, Unavailable

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Iterator, Mapping
    from typing import BinaryIO

    from starlette.types import Receive, Scope, Send

    from app.core.db.engine import Sessions
    from app.core.db.tables import Job
    from app.core.storage import ArtifactStore, Stored
    from app.results.formats import SubsetFormat

MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


def picked_rows(artifacts: ArtifactStore, job: Job, headers: Mapping[str, str]) -> FileResponse:
    """The rows of a finished job, in the dataset's format.

    Raises:
        RowsGone: The artifact store no longer has the rows.
        Unavailable: The store does not answer.
    """
    kind = (job.result or {})["format"]
    name = rows_name(job.id, kind)
    try:
        stored = artifacts.stat(name)
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    if stored is None:
        raise RowsGone(f"The rows of job {job.id} are not in the artifact store any more; its indices are.")
    return _file(artifacts, stored, f"subset-{job.id}.{kind}", MEDIA_TYPES[kind], headers)


def subset_file(
    artifacts: ArtifactStore,
    sessions: Sessions,
    scratch: Path,
    job_id: uuid.UUID,
    chosen: SubsetFormat,
    headers: Mapping[str, str],
) -> FileResponse:
    """A subset as a file of the artifact store; the first request for a range writes the file.

    The file has the same bytes as the stream without ranges, so an interrupted download can continue with ranges.
    The file is deleted with the job's rows.

    Raises:
        Unavailable: The store does not answer.
    """
    name = subset_name(job_id, hashlib.sha256(made_by().encode()).hexdigest()[:8], chosen.name)
    try:
        stored = artifacts.stat(name) or _written(artifacts, name, scratch, chosen.write(sessions, job_id))
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    return _file(artifacts, stored, f"subset-{job_id}.{chosen.name}", chosen.media_type, headers)


def _written(artifacts: ArtifactStore, name: str, scratch: Path, parts: Iterator[bytes]) -> Stored:
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="subset-", dir=scratch) as directory:
        written = Path(directory) / "subset"
        with written.open("wb") as stream:
            stream.writelines(parts)
        artifacts.put(name, written)
    stored = artifacts.stat(name)
    if stored is None:
        raise StorageFailed(f"the artifact store {artifacts.place} has lost {name}: ask again")
    return stored


def _file(
    artifacts: ArtifactStore, stored: Stored, filename: str, media_type: str, headers: Mapping[str, str]
) -> FileResponse:
    if isinstance(artifacts, LocalArtifacts):
        return _RangedFile(artifacts.path(stored.name), filename=filename, media_type=media_type, headers=dict(headers))
    return _RangedObject(artifacts, stored, filename=filename, media_type=media_type, headers=headers)


class _RangedFile(FileResponse):
    """Starlette's FileResponse; a range that the file does not have is answered with a problem document."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """The ranges of a request as (first, end) bytes; an empty list, for the whole file, if `Range` is malformed.

        A server may ignore `Range` (RFC 9110, 14.2), and must ignore units that it does not know.

        Raises:
            RangeNotSatisfiable: A range begins beyond the end of the file.
        """
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except Unsatisfiable as error:
            raise RangeNotSatisfiable(http_range, file_size) from error


class _RangedObject(_RangedFile):
    """A FileResponse whose bytes come from an artifact store."""

    chunk_size = 256 * 1024

    def __init__(
        self, artifacts: ArtifactStore, stored: Stored, *, filename: str, media_type: str, headers: Mapping[str, str]
    ) -> None:
        status = (stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, stored.size, stored.modified, stored.modified, stored.modified)
        super().__init__(
            stored.name,
            headers={"last-modified": formatdate(stored.modified, usegmt=True), **headers},
            media_type=media_type,
            filename=filename,
            stat_result=os.stat_result(status),
        )
        self._artifacts = artifacts
        self._name = stored.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer without the server's `pathsend`, because there is no local file."""
        extensions = {name: value for name, value in scope.get("extensions", {}).items() if "pathsend" not in name}
        await super().__call__({**scope, "extensions": extensions}, receive, send)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[Any]:
        stream = await anyio.to_thread.run_sync(self._artifacts.open, self._name)
        try:
            yield _Reader(stream)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(stream.close)


class _Reader:
    """The file object that `FileResponse` reads, with blocking reads on another thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    async def read(self, size: int) -> bytes:
        """The next bytes; fewer than `size` only at the end."""
        return await anyio.to_thread.run_sync(self._stream.read, size)

    async def seek(self, offset: int) -> None:
        """Go to a place, in bytes from the start."""
        await anyio.to_thread.run_sync(self._stream.seek, offset)
