"""What of a subset is new since another job's: picks are told by their rows' digests, whatever their numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from app.core.db import selections
from app.core.storage import StorageFailed, picks_name
from app.http.problems import RowsGone, Unavailable
from app.results.schemas import SubsetChanges

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from app.core.db.engine import Sessions
    from app.core.storage import ArtifactStore

DIGEST_BYTES = 16


def changes(sessions: Sessions, artifacts: ArtifactStore, job_id: uuid.UUID, since: uuid.UUID) -> SubsetChanges:
    """How the subset of a finished job differs from that of another finished job.

    Raises:
        RowsGone: Which rows a job picked is not kept any more.
        Unavailable: The store does not answer.
    """
    ours, theirs = (_digests(artifacts, one) for one in (job_id, since))
    added = _without(ours, theirs)
    removed = _without(theirs, ours)
    return SubsetChanges(
        job_id=job_id,
        since=since,
        added=_rows_at(sessions, job_id, added),
        removed=_rows_at(sessions, since, removed),
        kept=len(ours) - len(added),
    )


def _digests(artifacts: ArtifactStore, job_id: uuid.UUID) -> list[bytes]:
    """Of a job's picks, in the order of picking."""
    try:
        content = artifacts.read(picks_name(job_id))
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    if content is None:
        raise RowsGone(f"Which rows job {job_id} picked is not kept any more: submit it again.")
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
