"""What a job would take, as a worker estimates it and clients read it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.core.contracts.schema import Response


class Seconds(Response):
    """How long something takes: in about four of five cases between low and high."""

    low: float
    likely: float
    high: float


class EstimatedSeconds(Seconds):
    """The same of a whole job, and of each of its stages; a job that waits for others' work takes longer."""

    stages: dict[str, Seconds] = Field(description="By stage: reading, gradients, selecting, publishing.")


class EstimateProblem(Response):
    """Something that a job would say, or that may fail it, as far as a sample of the rows tells."""

    field: str = Field(description="Path in the request.")
    message: str = Field(description="What is wrong, by how much, and what mends it.")


class Estimate(Response):
    """What a job would take."""

    rows: int = Field(description="Rows of the dataset, usable or not.")
    rows_rejected: int = Field(description="Of these, how many can't be used; from the sample, where there is one.")
    rows_sampled: int = Field(description="Rows that were turned into tokens for this: all of them, or a sample.")
    tokens: int = Field(description="Tokens of the usable rows.")
    gradient_rows: int = Field(description="Rows whose gradients are still to be computed.")
    gradient_tokens: int = Field(description="Their tokens.")
    rows_overlapping: int | None = Field(
        default=None,
        description="Usable rows that share text with the set of `selection.constraints.decontaminate` and are not "
        "picked; from the sample, where there is one. Left out without such a set.",
    )
    selected: int = Field(description="Rows that would be picked, at most.")
    seconds: EstimatedSeconds
    bytes: int = Field(description="What the job adds to the artifact store.")
    memory_bytes: int = Field(description="Memory that a worker needs for it, of the model's device.")
    device: str = Field(description="What computes the gradients.")
    workers: int = Field(description="Workers that compute gradients, which share the job's shards.")
    basis: Literal["earlier jobs", "probe"] = Field(
        description="What the time of the gradients is estimated from: earlier jobs of the same model and device, or "
        "some rows that were computed for it."
    )
    problems: list[EstimateProblem] = Field(default_factory=list)
