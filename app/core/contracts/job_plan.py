"""A job's plan: what the worker that parks a job tells the workers of its shards and parts, and its own next worker.

It is JSON in `jobs.plan` while the job is open, and gone when the job has succeeded. A field that nobody has set is not
stored.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict


class LimitReached(BaseModel):
    """Which limit of a request kept shards from being made.

    Attributes:
        limit: ``gradient_tokens`` or ``seconds``.
        value: As it was asked for.
        used: How much was used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Literal["gradient_tokens", "seconds"]
    value: float
    used: float


class RangesPlan(BaseModel):
    """A dataset that is read in ranges; how it is cut lies in the artifact store.

    Attributes:
        key: Of the corpus that the pieces of all ranges make; empty where whatever is missing is read as a whole.
        since: When the job began to read, in seconds since 1970 on Postgres's clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    since: float = 0.0


class JobPlan(BaseModel):
    """What is known of a job between two turns at it. Workers of shards and parts read the narrower plans below.

    Attributes:
        seconds: Time that each stage has taken so far.
        uses: Content key of the sketches that deletion leaves alone, from before anybody looked for them.
        beside: Fingerprints of the datasets that are read beside the job's own, by their role.
        work: What the shards make, by its content: jobs that are parked for equal work need it once.
        ranges: What is read; set while the shards are ranges to read, and not samples to sketch.
        pieces: Key of the corpus of the job's own dataset, once its pieces have been read: machines without the dataset
            put them together.
        role: Whose sketches the shards are: ``pool``, the job's own dataset, or a role of one beside it.
        pool: What the job's own dataset is called in names of features.
        fingerprint: Of the dataset that was read, ``sha256:<hex>``.
        corpus: Digest of its samples.
        model: Revision of the model.
        adapter: Revision of the adapter, if gradients are taken of one.
        sketches: Content key of the job's sketches, once the job was parked.
        shard_rows: Rows of a shard of the job, the last one's apart.
        parked_at: When the job was first parked for shards, in seconds since 1970 on Postgres's clock.
        rounds: Times that it was parked for shards.
        tokens: Tokens of these samples; unset where no limit asks for them.
        limited: The limit that was reached; unset before.
        behind: Whether the job waits for another one over the same samples that computes; unset where it does not.
        computed: Samples of its own dataset whose sketches were computed for this job before it was last parked.
        computed_beside: Likewise of the datasets beside it, by role.
        parted_at: When it was first parked for parts since then, likewise.
        splits: Times that it was parked for parts since then.
        candidates: Rows that may be picked: the parts are drawn of these.
        parts: Number of parts.
        picks: Picks of the whole selection; unset where tokens alone end it.
        alpha: Of the whole selection.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: dict[str, float] = {}
    uses: str | None = None
    work: str | None = None
    ranges: RangesPlan | None = None
    pieces: str | None = None
    beside: dict[str, str] = {}
    role: str = "pool"
    pool: str | None = None
    fingerprint: str | None = None
    corpus: str | None = None
    model: str | None = None
    adapter: str | None = None
    sketches: str | None = None
    shard_rows: int | None = None
    parked_at: float | None = None
    rounds: int = 0
    behind: bool | None = None
    computed: int = 0
    tokens: int = 0
    limited: LimitReached | None = None
    computed_beside: dict[str, int] = {}
    parted_at: float | None = None
    splits: int = 0
    candidates: int | None = None
    parts: int | None = None
    picks: int | None = None
    alpha: float | None = None

    @classmethod
    def load(cls, stored: dict[str, Any] | None) -> Self:
        """The plan in a job's row; an empty one where there is none yet.

        Raises:
            ValidationError: It lacks what this kind of plan must have.
        """
        return cls.model_validate(stored or {})

    def stored(self) -> dict[str, Any]:
        """The plan as a job's row holds it."""
        return self.model_dump(mode="json", exclude_unset=True)


class ShardPlan(JobPlan):
    """The plan of a job that is parked for shards."""

    corpus: str
    model: str
    sketches: str
    shard_rows: int


class PartPlan(JobPlan):
    """The plan of a job that is parked for parts."""

    sketches: str
    candidates: int
    parts: int
    alpha: float
