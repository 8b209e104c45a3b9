"""What a selection climbs and what it keeps to: the candidates as they are selected from, their prices and limits."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.row_index import NAME_BYTES
from workers.gradients.shards import empty_matrix
from workers.selection import Constraints, Metric, Sources
from workers.stages.limits import limits_of
from workers.stages.purposes import bearings_of, own_metric
from workers.statistics.row_figures import length_factors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import SelectionSpec
    from app.core.storage import ArtifactStore
    from workers.stages.candidates import Candidates
    from workers.stages.limits import Limits, Membership
    from workers.stages.purposes import Bearings, Directions

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """A selection's question over n candidates.

    Attributes:
        values: What is selected from, shape (n, p): the sketches at their lengths, under the metric of the
            target or of the candidates themselves.
        limits: What the picks keep to.
        bearings: How the candidates lie towards what the selection is for.
        tokens: Tokens that training on each candidate reads, shape (n,), int64.
    """

    values: NDArray[np.float32]
    limits: Limits
    bearings: Bearings
    tokens: NDArray[np.int64]


def objective_of(
    spec: SelectionSpec,
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    membership: Membership,
    tokens: NDArray[np.int64],
    beside: Mapping[str, Directions],
    scratch: Path,
) -> Objective:
    """The question that a request puts to the candidates.

    Args:
        spec: The selection.
        values: Sketches of the candidates at the lengths that are selected from, shape (n, p).
        rows: Row numbers of the candidates, ascending, shape (n,).
        membership: What the constraints are about.
        tokens: Of each candidate, shape (n,).
        beside: The sketches of what the selection is for, by role.
        scratch: Directory for a matrix that is too large for memory.

    Raises:
        JobError: A source is named that no candidate has.
    """
    bearings = bearings_of(spec, values, beside)
    # A sweep over lengths may come to a metric that the job itself has not.
    near_rows = None if bearings.metric is None and spec.sweep is None else values
    limits = limits_of(spec.constraints, membership, rows, tokens, spec.budget.tokens, bearings.price, near_rows)
    return Objective(turned(values, bearings.metric, scratch), limits, bearings, tokens)


def turned(values: NDArray[np.float32], metric: Metric | None, scratch: Path | None = None) -> NDArray[np.float32]:
    """The sketches under a metric, at the lengths that they have; themselves without one.

    Args:
        values: Shape (n, p); none of them in a part that no row was drawn for.
        metric: Of the target, or None.
        scratch: Directory for a matrix that is too large for memory.
    """
    if metric is None or not len(values):
        return values
    return metric.of(values, unit=False, out=empty_matrix((values.shape[0], values.shape[1]), scratch))


def at_other_lengths(
    candidates: Candidates, objective: Objective, spec: SelectionSpec, scratch: Path
) -> NDArray[np.float32]:
    """What would be selected from, had the request named other lengths, shape (n, p).

    Args:
        candidates: The rows that may be picked.
        objective: What is selected from.
        spec: The selection with the other lengths.
        scratch: Directory for a matrix that is too large for memory.
    """
    wanted = length_factors(candidates.figures.norm, spec.normalize)
    factors = np.ones(len(candidates.rows)) if wanted is None else wanted[candidates.places]
    if candidates.factors is not None:
        factors = np.divide(factors, candidates.factors, out=np.zeros_like(factors), where=candidates.factors > 0)
    values = candidates.values
    found = empty_matrix((values.shape[0], values.shape[1]), scratch)
    for start in range(0, len(values), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        found[part] = values[part] * factors[part, None]
    metric = objective.bearings.metric if spec.target is not None else own_metric(candidates.values, spec.own_weight)
    return turned(found, metric, scratch)


@dataclass(frozen=True, slots=True, eq=False)
class PartsInput:
    """What the workers need that select from parts of n candidates.

    Attributes:
        files: Names of the files that their sketches are in.
        file: Place in `files` of each candidate's file, shape (n,), int32.
        row: Its row there, shape (n,), int32.
        factors: What its stored sketch is multiplied with, shape (n,), float64; None: nothing.
        metric: As in `Bearings`.
        constraints: Over all candidates, or None.
    """

    files: tuple[str, ...]
    file: NDArray[np.int32]
    row: NDArray[np.int32]
    factors: NDArray[np.float64] | None
    metric: Metric | None
    constraints: Constraints | None


def write_parts_input(artifacts: ArtifactStore, name: str, given: PartsInput) -> None:
    """Keep it for the workers of the parts."""
    files = np.frombuffer(bytes.fromhex("".join(given.files)), dtype=np.uint8).reshape(-1, NAME_BYTES)
    tensors: dict[str, NDArray[Any]] = {"files": files, "file": given.file, "row": given.row}
    about: dict[str, Any] = {"metric": given.metric is not None, "constraints": given.constraints is not None}
    if given.factors is not None:
        tensors["factors"] = given.factors
    if given.metric is not None:
        about["base"] = given.metric.base
        tensors |= {"directions": given.metric.directions, "stretch": given.metric.stretch}
    limits = given.constraints
    if limits is not None:
        about |= {"token_budget": limits.token_budget, "near_cosine": limits.near_cosine}
        tensors |= {"include": limits.include, "exclude": limits.exclude}
        tensors |= {
            name: values for name, values in (("tokens", limits.tokens), ("price", limits.price)) if values is not None
        }
        if limits.sources is not None:
            about["sources"] = list(limits.sources.names)
            tensors |= {name: getattr(limits.sources, name) for name in ("of_row", "least", "most")}
    artifacts.write(name, pack(tensors, {"about": json.dumps(about)}))


def read_parts_input(artifacts: ArtifactStore, name: str) -> PartsInput | None:
    """What `write_parts_input` kept; None where it is not there or not whole."""
    content = artifacts.read(name)
    found = None if content is None else unpack(content)
    if found is None:
        return None
    tensors, about = found.tensors, json.loads(found.metadata["about"])
    constraints = None
    if about["constraints"]:
        sources = None
        if "sources" in about:
            sources = Sources(tuple(about["sources"]), tensors["of_row"], tensors["least"], tensors["most"])
        constraints = Constraints(
            tokens=tensors.get("tokens"),
            token_budget=about["token_budget"],
            sources=sources,
            include=tensors["include"],
            exclude=tensors["exclude"],
            near_cosine=about["near_cosine"],
            price=tensors.get("price"),
        )
    return PartsInput(
        files=tuple(bytes(file).hex() for file in tensors["files"]),
        file=tensors["file"],
        row=tensors["row"],
        factors=tensors.get("factors"),
        metric=Metric(about["base"], tensors["directions"], tensors["stretch"]) if about["metric"] else None,
        constraints=constraints,
    )


def limits_in_part(
    limits: Constraints | None, rows: NDArray[np.int64], sketches: NDArray[np.float32], metric: Metric | None
) -> Constraints | None:
    """The constraints for some candidates alone.

    Args:
        limits: Over all candidates.
        rows: Places of the part's candidates, ascending, those that have to be picked among them.
        sketches: Theirs, before the metric, shape (m, p).
        metric: Of the target, or None.
    """
    if limits is None:
        return None
    near = sketches if limits.near_cosine is not None and metric is not None else None
    return replace(limits.of(rows), near_rows=near)
