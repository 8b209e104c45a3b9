"""The files of a proof in the artifact store: its held-out rows, the rows of its arms, and the scores of its runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.contracts.proof_result import RunOutcome
from workers.data.samples import Sample
from workers.gradients.checked_tensors import pack, unpack
from workers.runtime.failures import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from app.core.storage import ArtifactStore

VERSION = 1
"""Part of every run's key: raise it when the same run would give other scores."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """What every run is scored on.

    Attributes:
        samples: The rows as tokens.
        clusters: The number of each row's source, shape (n,), int64, for the bootstrap.
        options: All options of the rows that have some, row by row, each as the row with that response.
        option_item: The place among `samples` of each option's row, ascending.
        option_right: Which options are right, one a row.
    """

    samples: Sequence[Sample]
    clusters: NDArray[np.int64]
    options: Sequence[Sample]
    option_item: NDArray[np.int64]
    option_right: NDArray[np.bool_]

    def content(self) -> bytes:
        """As a file; the same rows are the same bytes."""
        tensors = {
            **_flat("rows", self.samples),
            **_flat("options", self.options),
            "clusters": self.clusters,
            "option_item": self.option_item,
            "option_right": self.option_right.astype(np.uint8),
        }
        return pack(tensors, {})

    @classmethod
    def read(cls, artifacts: ArtifactStore, name: str) -> HeldOutRows:
        """Out of the store.

        Raises:
            JobError: It is not there, or damaged.
        """
        tensors = _tensors(artifacts, name)
        return cls(
            samples=_samples("rows", tensors),
            clusters=tensors["clusters"],
            options=_samples("options", tensors),
            option_item=tensors["option_item"],
            option_right=tensors["option_right"].astype(np.bool_),
        )


def write_arms(artifacts: ArtifactStore, name: str, arms: Mapping[str, NDArray[np.int64]]) -> None:
    """Keep the rows of the arms, as places among the pool's samples."""
    artifacts.write(name, pack(arms, {}))


def read_arm(artifacts: ArtifactStore, name: str, arm: str) -> NDArray[np.int64]:
    """The rows of one arm, by the name that `arm_key` gives.

    Raises:
        JobError: They are not there, or damaged.
    """
    places: NDArray[np.int64] = _tensors(artifacts, name)[arm]
    return places


def arm_key(arm: str, seed: int, *, drawn: bool) -> str:
    """The name of an arm's rows in its file: those of a seed, where each has its own."""
    return f"{arm}/{seed}" if drawn else arm


def write_outcome(
    artifacts: ArtifactStore, name: str, outcome: RunOutcome, scores: Mapping[str, NDArray[np.float64]]
) -> None:
    """Keep what a run gave: scores by metric, shape (items,)."""
    artifacts.write(name, pack(scores, {"outcome": outcome.model_dump_json()}))


def read_outcome(artifacts: ArtifactStore, name: str) -> tuple[RunOutcome, dict[str, NDArray[np.float64]]] | None:
    """What a run gave before; None where nothing whole is there."""
    content = artifacts.read(name)
    found = None if content is None else unpack(content)
    if found is None:
        return None
    return RunOutcome.model_validate_json(found.metadata["outcome"]), found.tensors


def run_key(made_from: Mapping[str, object], places: NDArray[np.int64]) -> str:
    """The content address of a run: 64 hex digits over all that its scores depend on."""
    rows = hashlib.sha256(np.ascontiguousarray(places, dtype="<i8").tobytes()).hexdigest()
    canonical = json.dumps({**made_from, "rows": rows, "version": VERSION}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _flat(name: str, samples: Sequence[Sample]) -> dict[str, NDArray[Any]]:
    lengths = np.array([sample.tokens for sample in samples], dtype=np.int64)
    return {
        f"{name}.ids": np.concatenate([np.empty(0, np.int32), *(sample.input_ids for sample in samples)]),
        f"{name}.mask": np.concatenate([np.empty(0, np.bool_), *(sample.loss_mask for sample in samples)]).view(
            np.uint8
        ),
        f"{name}.lengths": lengths,
        f"{name}.numbers": np.array([sample.row for sample in samples], dtype=np.int64),
    }


def _samples(name: str, tensors: Mapping[str, NDArray[Any]]) -> list[Sample]:
    ids, mask = tensors[f"{name}.ids"], tensors[f"{name}.mask"].astype(np.bool_)
    ends = np.cumsum(tensors[f"{name}.lengths"])
    starts = ends - tensors[f"{name}.lengths"]
    return [
        Sample(int(row), ids[start:end].astype(np.int32), mask[start:end])
        for row, start, end in zip(tensors[f"{name}.numbers"], starts, ends, strict=True)
    ]


def _tensors(artifacts: ArtifactStore, name: str) -> dict[str, NDArray[Any]]:
    content = artifacts.read(name)
    found = None if content is None else unpack(content)
    if found is None:
        raise JobError(
            "proof-files-gone",
            "The proof's rows are gone",
            "held_out",
            f"{name} is not in the artifact store, or is damaged: submit the proof again, its runs are kept",
        )
    return found.tensors
