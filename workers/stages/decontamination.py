"""Which rows share text with the set that models are evaluated on: none of them may be picked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from workers.data.errors import DatasetError
from workers.data.formats import read_columns
from workers.data.ngrams import read_ngrams, rows_within
from workers.stages.limits import FIELD, impossible, listed
from workers.stages.reading import dataset_snapshot, source_beside

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from numpy.typing import NDArray

    from app.core.contracts.constraints_request import Decontaminate
    from app.core.db.tables import Json
    from app.core.settings import Settings
    from spice_rows.shape import Shape
    from workers.data.fetch import Snapshot
    from workers.data.ngrams import NGrams
    from workers.runtime.context import WorkerContext
    from workers.stages.limits import Membership
    from workers.stages.reading import Source


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The set that rows are held against.

    Attributes:
        ngrams: Its runs of words.
        fingerprint: Of its file as stored.
    """

    ngrams: NGrams
    fingerprint: str

    @property
    def told(self) -> Json:
        """What a result says of it."""
        found = self.ngrams
        return {"rows": found.rows, "short": found.short, "runs": len(found.runs), "fingerprint": self.fingerprint}

    def rows_of(
        self, snapshot: Snapshot, shape: Shape, settings: Settings, should_stop: Callable[[], bool]
    ) -> NDArray[np.int64]:
        """Numbers of the rows of a dataset that share text with it, ascending.

        Raises:
            Stopped: `should_stop` said so.
        """
        return rows_within(snapshot, list(shape.columns.values()), self.ngrams, settings, should_stop)


def evaluation_of(
    context: WorkerContext, owner: uuid.UUID, source: Source, should_stop: Callable[[], bool]
) -> Evaluation | None:
    """The set that a request wants rows held against; None without one.

    Args:
        context: This worker.
        owner: The job or estimate: a registered set must be of the same project.
        source: Its own source.
        should_stop: True gives up.

    Raises:
        JobError: The set is not what it was, can't be read, or has no rows or no such columns.
        Stopped: `should_stop` said so.
    """
    limits = source.request.selection.constraints
    asked = None if limits is None else limits.decontaminate
    if asked is None:
        return None
    field = f"{FIELD}.decontaminate.dataset"
    beside = source_beside(context, owner, source, asked.dataset, field, None)
    try:
        snapshot = dataset_snapshot(context, beside.uri, beside.fingerprint, recalled=False, should_stop=should_stop)
        ngrams = _read(snapshot, asked, field, context.settings, should_stop)
    except DatasetError as error:
        raise impossible(field, error.message) from error
    return Evaluation(ngrams, snapshot.fingerprint)


def _read(
    snapshot: Snapshot, asked: Decontaminate, field: str, settings: Settings, should_stop: Callable[[], bool]
) -> NGrams:
    columns = {} if asked.dataset.columns is None else asked.dataset.columns.model_dump(exclude_none=True)
    present = read_columns(snapshot, settings)
    for role, column in columns.items():
        if column not in present:
            raise impossible(f"{field}.columns.{role}", f"is {column!r}, but its columns are {listed(present)}")
    found = read_ngrams(snapshot, list(columns.values()) or None, asked.ngram, settings, should_stop)
    if not found.rows:
        raise impossible(field, "has no rows: give a dataset with 1 or more")
    return found


def held_against(membership: Membership, overlapping: NDArray[np.int64], evaluation: Evaluation) -> Membership:
    """The same, with the rows that share text with an evaluation set.

    Args:
        membership: Without them.
        overlapping: Their row numbers, ascending.
        evaluation: The set.

    Raises:
        JobError: A row that has to be picked is among them.
    """
    both = np.intersect1d(membership.include, overlapping)
    if len(both):
        kept = membership.kept
        if kept is not None and both[0] in kept.rows:
            raise impossible(
                f"{FIELD}.decontaminate",
                f"row {both[0]}, which job {kept.job} picked and extends keeps, shares text with the set: take the row "
                "out of the dataset, or select anew without extends",
            )
        raise impossible(
            f"{FIELD}.include",
            f"row {both[0]} must be picked and shares text with the set of decontaminate: leave it out of include",
        )
    return replace(membership, overlapping=overlapping, evaluation=evaluation.told)
