"""What of a subset is new since another job's: picks are told by their rows' digests, whatever their numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from app.core.db import selections
from app.core.storage import picks_name, read_checked
from app.http.problems import RowsGone
from app.results.schemas import SubsetChanges

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from app.core.db.engine import Sessions
    from app.results.job_files import JobFiles

DIGEST_BYTES = 16


def changes(sessions: Sessions, files: JobFiles, since: JobFiles) -> SubsetChanges:
    """How the subset of a finished job differs from that of another finished job.

    Raises:
        RowsGone: Which rows a job picked is not kept any more.
        RowsInRepair: It is not what was published, and is being made again.
        RowsDamaged: It could not be made again.
        Unavailable: The store does not answer.
    """
    ours, theirs = _digests(files), _digests(since)
    added = _without(ours, theirs)
    removed = _without(theirs, ours)
    return SubsetChanges(
        job_id=files.job_id,
        since=since.job_id,
        added=_rows_at(sessions, files.job_id, added),
        removed=_rows_at(sessions, since.job_id, removed),
        kept=len(ours) - len(added),
    )


def _digests(files: JobFiles) -> list[bytes]:
    """Of a job's picks, in the order of picking."""
    with files.looked_at():
        content = read_checked(files.artifacts, picks_name(files.job_id))
    if content is None:
        raise RowsGone(f"Which rows job {files.job_id} picked is not kept any more: submit it again.")
    return [content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)]


def _without(digests: Sequence[bytes], others: Sequence[bytes]) -> list[int]:
    """Places of the digests that are not among the others; what is there twice must be there twice among them."""
    left = Counter(others)
    places = []
    for place, digest in enumerate(digests):
        if left[digest] > 0:
            left[digest] -= 1
        else:
            places.append(place)
    return places


def _rows_at(sessions: Sessions, job_id: uuid.UUID, places: Sequence[int]) -> list[int]:
    """The row numbers of some picks, by their places in the order of picking, ascending."""
    rows, wanted, first = list[int](), iter(places), 0
    place = next(wanted, None)
    for chunk in selections.stream_column(sessions, job_id, "indices"):
        while place is not None and place < first + len(chunk):
            rows.append(int(chunk[place - first]))
            place = next(wanted, None)
        first += len(chunk)
    return rows
