"""The datasets beside a job's own: rows of what the picks are for, and of what they must not harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.data.errors import DatasetError
from workers.data.formats import read_columns
from workers.data.rejection import Reason, enforce_limit
from workers.data.row_marks import NO_SOURCE, Wanted, read_marks
from workers.models.architecture import check_length
from workers.runtime.failures import JobError
from workers.selection import Metric, cosines, metric, prices, reach
from workers.selection.seeds import random_permutation
from workers.stages.reading import read, source_beside

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Purpose, SelectionSpec
    from app.core.db.tables import Json
    from workers.gradients.shards import StoredSketches
    from workers.runtime.context import WorkerContext
    from workers.stages.reading import Reading, Source

POOL, TARGET, PROTECT = "pool", "target", "protect"
MOST_ROWS = 10_000
"""Of a dataset beside a job's own: the directions of all are worked out at once, in float64."""
OWN_ROWS = 1024
"""Candidates at most whose directions stand for those of all, drawn at random: more would cost more than they tell."""
RANDOM_DRAWS = 5
"""Random picks that the reach of the picks is held against."""


def purposes_of(spec: SelectionSpec) -> dict[str, Purpose]:
    """The datasets that a selection needs beside the job's own, by role."""
    named: dict[str, Purpose | None] = {TARGET: spec.target, PROTECT: spec.protect}
    return {role: purpose for role, purpose in named.items() if purpose is not None}


def purpose_source(
    context: WorkerContext, job_id: uuid.UUID, source: Source, role: str, fingerprint: str | None
) -> Source:
    """The source of a dataset beside a job's own; raises as `source_beside`."""
    wanted = purposes_of(source.request.selection)[role].dataset
    return source_beside(context, job_id, source, wanted, f"selection.{role}.dataset", fingerprint)


def read_purpose(
    context: WorkerContext, role: str, purpose: Purpose, source: Source, should_stop: Callable[[], bool]
) -> Reading:
    """Read a dataset beside a job's own.

    Raises:
        JobError: It can't be read, has too many rows, too many that can't be used, or no such column of groups; the
            message names the field.
        ModelError: A row is longer than the model reads.
        Stopped: `should_stop` said so.
    """
    field = f"selection.{role}.dataset"
    try:
        reading = read(context, source, should_stop)
        corpus, wanted = reading.corpus, source.request.dataset
        enforce_limit(
            corpus.rejected, corpus.rows_total, wanted.max_rejected_fraction, said=corpus.said, needed=corpus.needed
        )
    except DatasetError as error:
        raise JobError(
            f"dataset-{error.reason_code.replace('_', '-')}", f"The {role} can't be used", field, error.message
        ) from error
    if corpus.rows_total > MOST_ROWS:
        raise JobError(
            f"{role}-too-large",
            f"The {role} has too many rows",
            field,
            f"has {corpus.rows_total:,} rows, and {MOST_ROWS:,} is the most: send a sample of them",
        )
    check_length(*corpus.longest(), reading.model.longest)
    if purpose.group_column is not None:
        _check_groups(read_columns(reading.snapshot, context.settings), role, purpose.group_column)
    return reading


def _check_groups(columns: list[str], role: str, wanted: str) -> None:
    if wanted not in columns:
        known = ", ".join(repr(name) for name in columns[:20])
        raise JobError(
            "dataset-unknown-column",
            f"The {role} can't be used",
            f"selection.{role}.group_column",
            f"is {wanted!r}, but that dataset's columns are {known}: use one of those",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """The sketches of a dataset beside a job's own.

    Attributes:
        values: Of the rows that have a direction, shape (q, p), float32.
        groups: Places of each group's rows among them, by the group's name; empty without groups.
        rows: Rows of the dataset.
        unusable: Row numbers by reason.
    """

    values: NDArray[np.float32]
    groups: Mapping[str, NDArray[np.int64]]
    rows: int
    unusable: Mapping[str, int]


def directions_of(
    context: WorkerContext,
    role: str,
    purpose: Purpose,
    reading: Reading,
    stored: StoredSketches,
    should_stop: Callable[[], bool],
) -> Directions:
    """What the sketches of such a dataset say.

    Raises:
        JobError: No row has a direction.
    """
    corpus = reading.corpus
    pointing = np.any(stored.values != 0, axis=1)
    if not pointing.any():
        raise JobError(
            "no-information",
            f"The {role}'s gradients say nothing",
            f"selection.{role}.dataset",
            f"none of its {len(corpus)} usable rows has a gradient that is finite and not zero: check the rows",
        )
    unusable = {str(reason): len(rows) for reason, rows in corpus.rejected.items() if len(rows)}
    if not stored.finite.all():
        unusable[str(Reason.NON_FINITE_GRADIENT)] = int((~stored.finite).sum())
    return Directions(
        values=stored.values[pointing],
        groups=_groups(context, purpose, reading, corpus.rows[stored.finite][pointing], should_stop),
        rows=corpus.rows_total,
        unusable=unusable,
    )


def _groups(
    context: WorkerContext,
    purpose: Purpose,
    reading: Reading,
    rows: NDArray[np.int64],
    should_stop: Callable[[], bool],
) -> dict[str, NDArray[np.int64]]:
    column = purpose.group_column
    if column is None:
        return {}
    marks = read_marks(
        reading.snapshot,
        reading.corpus.shape,
        reading.corpus.wanted,
        context.settings,
        Wanted(source=column),
        should_stop,
    )
    group = marks.source[rows]
    return {marks.names[at]: np.flatnonzero(group == at) for at in np.unique(group[group != NO_SOURCE]).tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Bearings:
    """How n candidates lie towards what a selection is for.

    Attributes:
        metric: Of the target, or of the candidates themselves; None where all directions count alike.
        price: What each candidate's score loses for pulling against, nats, shape (n,); None: nothing.
        cosines: Of each candidate with the mean direction, shape (n,), by role.
        directions: By role.
    """

    metric: Metric | None
    price: NDArray[np.float64] | None
    cosines: Mapping[str, NDArray[np.float64]]
    directions: Mapping[str, Directions]


def bearings_of(spec: SelectionSpec, values: NDArray[np.float32], found: Mapping[str, Directions]) -> Bearings:
    """How the candidates lie.

    Args:
        spec: The selection.
        values: Sketches of the candidates, shape (n, p).
        found: The sketches beside them, by role.
    """
    target, protect = found.get(TARGET), found.get(PROTECT)
    price = prices(
        values,
        None if target is None else target.values,
        None if protect is None else protect.values,
        target_price=0.0 if spec.target is None else spec.target.price,
        protect_price=0.0 if spec.protect is None else spec.protect.price,
    )
    if target is None:
        turning = own_metric(values, spec.own_weight)
    else:
        weight = 0.0 if spec.target is None else spec.target.weight
        turning = metric(target.values, weight) if weight > 0 else None
    return Bearings(
        metric=turning,
        price=price if price.any() else None,
        cosines={role: cosines(values, one.values, role) for role, one in found.items()},
        directions=found,
    )


def own_metric(values: NDArray[np.float32], weight: float) -> Metric | None:
    """The metric of the candidates themselves: what many of them teach counts more than what one alone does.

    Args:
        values: Their sketches, shape (n, p); a random sample of them stands for all where they are many.
        weight: Of their own directions, 0 to 1.

    Returns:
        None where the weight is 0, or no candidate of the sample has a direction.
    """
    if weight == 0:
        return None
    drawn = random_permutation(len(values), seed=0, role="representative", layer="rows")[:OWN_ROWS]
    sample = values[np.sort(drawn)]
    return metric(sample, weight) if sample.any() else None


def reached(bearings: Bearings, values: NDArray[np.float32], picks: NDArray[np.int64], seed: int) -> dict[str, Json]:
    """How far the picks reach towards each purpose, against random picks.

    Args:
        bearings: Of the candidates.
        values: Sketches of the candidates, shape (n, p).
        picks: Places of the picks, shape (k,), k >= 1.
        seed: Of the random picks.
    """
    drawn = [
        random_permutation(len(values), seed=seed, role="reach/random", layer=str(draw))[: len(picks)]
        for draw in range(RANDOM_DRAWS)
    ]
    found: dict[str, Json] = {}
    for role, beside in bearings.directions.items():
        own, random = reach(values, picks, beside.values), [reach(values, one, beside.values) for one in drawn]
        groups = {}
        for name, places in beside.groups.items():
            part = reach(values, picks, beside.values[places])
            groups[name] = {
                "rows": len(places),
                "covered": part.covered,
                "covered_per_direction": part.covered / part.directions,
                "cosine": part.cosine,
            }
        found[role] = {
            "rows": beside.rows,
            "sketched": len(beside.values),
            "unusable": dict(beside.unusable),
            "directions": own.directions,
            "covered": own.covered,
            "covered_random": float(np.mean([one.covered for one in random])),
            "cosine": own.cosine,
            "cosine_random": float(bearings.cosines[role].mean()),
            "groups": groups,
            "worst_group": min(groups, key=lambda name: groups[name]["covered_per_direction"]) if groups else None,
        }
    return found
