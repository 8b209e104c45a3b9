"""Files of a result as HTTP answers: streamed, checked, with ETag and ranges, out of any artifact store."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from dataclasses import dataclass
from email.utils import formatdate
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from app.core.storage import (
    Damaged,
    StorageFailed,
    check_size,
    checked,
    put_checked,
    row_scores_name,
    rows_name,
    subset_name,
)
from app.http.caching import made_by
from app.http.problems import RangeNotSatisfiable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from app.core.db.engine import Sessions
    from app.core.db.tables import Job
    from app.core.storage import ArtifactStore, Stored
    from app.results.formats import SubsetFormat
    from app.results.job_files import JobFiles

MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
logger = logging.getLogger(__name__)

RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class PartAsked:
    """Which bytes of a file a request asks for.

    Attributes:
        range: Its `Range`; one that can't be read is ignored, and so is one of several parts (RFC 9110, 14.2).
        if_range: Its `If-Range`: the part is wanted of this version alone, and the whole of any other.
    """

    range: str | None
    if_range: str | None = None

    def of(self, size: int, versions: Collection[str]) -> tuple[int, int] | None:
        """First and last byte; None for the whole file.

        Args:
            size: The file's bytes.
            versions: By which `If-Range` may name the file as it is now: its ETag and its date.

        Raises:
            RangeNotSatisfiable: The range begins beyond the end of the file.
        """
        if self.range is None or (self.if_range is not None and self.if_range not in versions):
            return None
        match = RANGE.fullmatch(self.range)
        if match is None or match[1] == match[2] == "":
            return None
        if match[1]:
            first, last = int(match[1]), min(int(match[2] or size), size - 1)
            if match[2] and int(match[2]) < first:
                return None
        else:
            first, last = max(size - int(match[2]), 0), size - 1
        if first >= size:
            raise RangeNotSatisfiable(self.range, size)
        return first, last


def picked_rows(files: JobFiles, job: Job, headers: Mapping[str, str], part: PartAsked) -> StreamingResponse:
    """The rows of a finished job, in the dataset's format.

    Raises:
        RowsGone: They are not in the artifact store.
        RowsInRepair: They are not what was published, and are being made again.
        RowsDamaged: They could not be made again.
        Unavailable: The store does not answer.
    """
    kind = (job.result or {})["format"]
    return _published(files, rows_name(job.id, kind), f"subset-{job.id}.{kind}", headers, part)


def scores_file(files: JobFiles, headers: Mapping[str, str], part: PartAsked) -> StreamingResponse:
    """The figures of all rows of a finished job, as Parquet; the errors are those of `picked_rows`."""
    return _published(files, row_scores_name(files.job_id), f"scores-{files.job_id}.parquet", headers, part)


def _published(
    files: JobFiles, name: str, filename: str, headers: Mapping[str, str], part: PartAsked
) -> StreamingResponse:
    with files.looked_at():
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return _file(files.artifacts, files.stored(name), filename, media_type, headers, part, files.streamed)


def subset_file(
    files: JobFiles,
    sessions: Sessions,
    scratch: Path,
    chosen: SubsetFormat,
    headers: Mapping[str, str],
    part: PartAsked,
) -> StreamingResponse:
    """A subset as a file of the artifact store, written when the first range of it is asked for, or if it is damaged.

    The file has the same bytes as the stream without ranges, so an interrupted download can continue with ranges.
    The file is deleted with the job's rows.

    Raises:
        Unavailable: The store does not answer.
    """
    artifacts, job_id = files.artifacts, files.job_id
    name = subset_name(job_id, hashlib.sha256(made_by().encode()).hexdigest()[:8], chosen.name)

    def answer(stored: Stored | None) -> StreamingResponse:
        stored = stored or _written(artifacts, name, scratch, chosen.write(sessions, job_id))
        filename = f"subset-{job_id}.{chosen.name}"
        return _file(artifacts, stored, filename, chosen.media_type, headers, part, dropped)

    def dropped(pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except Damaged:
            artifacts.remove(name)  # it is written anew when it is asked for next
            raise

    try:
        try:
            return answer(artifacts.stat(name))
        except Damaged as error:
            logger.warning("%s; it is written anew", error)
            return answer(None)
    except StorageFailed as error:
        raise Unavailable(str(error)) from error


def _written(artifacts: ArtifactStore, name: str, scratch: Path, parts: Iterator[bytes]) -> Stored:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="subset-", dir=scratch) as directory:
            written = Path(directory) / "subset"
            with written.open("wb") as stream:
                stream.writelines(parts)
            put_checked(artifacts, name, written)
    except StorageFailed:
        raise
    except OSError as error:  # of the cache
        raise StorageFailed(
            f"{scratch} takes no file ({error.strerror}): free space there, or ask for the whole file, without Range"
        ) from error
    stored = artifacts.stat(name)
    if stored is None:
        raise StorageFailed(f"the artifact store {artifacts.place} has lost {name}: ask again")
    return stored


def _file(
    artifacts: ArtifactStore,
    stored: Stored,
    filename: str,
    media_type: str,
    headers: Mapping[str, str],
    part: PartAsked,
    watched: Callable[[Iterator[bytes]], Iterator[bytes]],
) -> StreamingResponse:
    """A file or a part of it. Its first piece is read and checked here, while the answer can still be a problem.

    Args:
        artifacts: The store.
        stored: The file.
        filename: As the client is to save it.
        media_type: Its kind.
        headers: Further headers of the answer.
        part: What is asked for.
        watched: Gets the pieces after the first, and hears of damage there.

    Raises:
        RangeNotSatisfiable: The range begins beyond the end of the file.
        Damaged: The first piece is not what was published. Of a later one, the answer breaks off.
        StorageFailed: The store does not answer.
    """
    told = {
        "last-modified": formatdate(stored.modified, usegmt=True),
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{filename}"',
    }
    try:
        span = part.of(stored.size, (headers["ETag"], told["last-modified"]))
    except RangeNotSatisfiable:
        check_size(artifacts, stored.name, stored.size)  # half a file has an end of its own
        raise
    first, last = span or (0, stored.size - 1)
    told["content-length"] = str(last - first + 1)
    if span is not None:
        told["content-range"] = f"bytes {first}-{last}/{stored.size}"
    pieces = checked(artifacts, stored.name, stored.size, first, last)
    body = chain([next(pieces, b"")], watched(pieces))
    return StreamingResponse(body, 200 if span is None else 206, {**headers, **told}, media_type)
