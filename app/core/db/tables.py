"""The schema. Migrations are proven equal to these classes by a test."""

from __future__ import annotations

import enum
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.telemetry import origin

Json = dict[str, Any]

DEFAULT_PROJECT = uuid.UUID("5b1ce000-0000-4000-8000-000000000000")
"""The project `default`, made by the migrations: what is made where there are no keys belongs to it."""


class Base(DeclarativeBase):
    """Declarative base: constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own idiom
        datetime: DateTime(timezone=True),
        str: Text(),
        Json: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        float: Double(),
    }


class State(enum.StrEnum):
    """States of everything that a worker runs.

    queued -> running -> succeeded | failed | cancelled, and running -> queued when a worker dies or hands back.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Stage(enum.StrEnum):
    """What a running job is doing."""

    READING = "reading"
    GRADIENTS = "gradients"
    SELECTING = "selecting"
    PUBLISHING = "publishing"


class ProofStage(enum.StrEnum):
    """What a running proof is doing."""

    READING = "reading"
    GRADIENTS = "gradients"
    SELECTING = "selecting"
    TRAINING = "training"
    COMPARING = "comparing"


class EventKind(enum.StrEnum):
    """What an event of a job or of a proof tells."""

    STATE = "state"
    STAGE = "stage"
    PROGRESS = "progress"


def _text_enum(kind: type[enum.StrEnum], name: str) -> Enum:
    """A text column with a CHECK: unlike a Postgres enum type, values can be added in one transaction."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Leased:
    """Columns of a row that is queued, claimed by one worker at a time, and finished once.

    `dispatch` numbers the times that the row went to the queue: a message of an older dispatch claims nothing.
    `lease_token` fences the worker that holds the row: only its statements change it.
    `queued_at` lies ahead while the row waits for something that is away, since the operation `outage_of` failed at
    `outage_since`.
    `origin` is what asked for the row: the request's id and its trace.
    """

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4, sort_order=-1)
    state: Mapped[State] = mapped_column(_text_enum(State, "state"), default=State.QUEUED)
    dispatch: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"))
    crashes: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    lease_token: Mapped[uuid.UUID | None] = mapped_column(UUID(as_uuid=True))
    lease_expires_at: Mapped[datetime | None]
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    outage_since: Mapped[datetime | None] = mapped_column(sort_order=10)
    outage_of: Mapped[str | None] = mapped_column(sort_order=10)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    error: Mapped[Json | None]
    origin: Mapped[Json | None] = mapped_column(default=origin.noted)


def _open_index(table: str) -> Index:
    """The few rows that the reconciler looks at."""
    return Index(f"ix_{table}_open", "state", "queued_at", postgresql_where=text("state IN ('queued', 'running')"))


def _units_index(table: str) -> Index:
    """The first unit of a job that waits, runs or has failed: asked at the end of each unit, however many there are."""
    return Index(f"ix_{table}_job_id_state_number", "job_id", "state", "number")


class Scope(enum.StrEnum):
    """What an API key may do; each scope includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether this scope includes the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Project(Base):
    """A project, which owns jobs and datasets; keys of other projects can't see them."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The project's own limits; null is the settings'.
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    open_jobs: Mapped[int | None] = mapped_column(BigInteger)
    open_readings: Mapped[int | None] = mapped_column(BigInteger)
    rows_per_job: Mapped[int | None] = mapped_column(BigInteger)
    rows_per_day: Mapped[int | None] = mapped_column(BigInteger)
    upload_bytes: Mapped[int | None] = mapped_column(BigInteger)
    # How often its webhook secret was replaced, and how long the one before is used beside it.
    webhook_rotation: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    webhook_overlap_until: Mapped[datetime | None]
    # When a worker last took something of it: projects take turns.
    served_at: Mapped[datetime | None]


class ApiKey(Base):
    """An API key: what it may do, and the hash of its secret, which is stored nowhere."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("prefix"),)

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    scope: Mapped[Scope] = mapped_column(_text_enum(Scope, "scope"))
    prefix: Mapped[str]
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Owned:
    """Rows that belong to a project: `app.core.db.scoping` keeps a project's sessions to its own."""

    if TYPE_CHECKING:
        project_id: Mapped[uuid.UUID]


def _owner() -> Mapped[uuid.UUID]:
    return mapped_column(ForeignKey("projects.id"), server_default=text(f"'{DEFAULT_PROJECT}'"))


class Resource:
    """A row that clients name, list, change and delete.

    A trigger moves `updated_at` with whatever they see of the row, and always forward. After `expires_at` the row is
    deleted once nothing needs it.
    """

    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=20)
    expires_at: Mapped[datetime | None] = mapped_column(sort_order=21)


_NEWEST_FIRST = (text("created_at DESC"), text("id DESC"))


def _list_indexes(table: str) -> tuple[Index, ...]:
    """For the order of a list, for its filters, and for what has expired."""
    return (
        Index(f"ix_{table}_project_id_created_at_id", "project_id", *_NEWEST_FIRST),
        Index(f"ix_{table}_project_id_name", "project_id", text("name text_pattern_ops"), *_NEWEST_FIRST),
        Index(f"ix_{table}_metadata", text("metadata jsonb_path_ops"), postgresql_using="gin"),
        Index(f"ix_{table}_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )


class Dataset(Owned, Leased, Resource, Base):
    """A registered dataset: what a worker found at a URI, and the fingerprint that it had then.

    `shortest_rows` has tokens of its shortest usable row, as in `app.core.lifecycle.shortest_rows`.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        _open_index("datasets"),
        *_list_indexes("datasets"),
        Index("ix_datasets_project_id_uri", "project_id", "uri", *_NEWEST_FIRST),
    )

    uri: Mapped[str]
    uris: Mapped[list[str] | None]
    format: Mapped[str | None]
    name: Mapped[str | None]
    metadata_: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    rows: Mapped[int | None] = mapped_column(BigInteger)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    columns: Mapped[list[str] | None]
    shape: Mapped[str | None]
    fingerprint: Mapped[str | None]
    sources: Mapped[Json | None]
    shortest_rows: Mapped[Json | None]
    project_id: Mapped[uuid.UUID] = _owner()

    @property
    def every_uri(self) -> list[str]:
        """All URIs that were registered, in order."""
        return self.uris or [self.uri]


class Preview(Owned, Leased, Base):
    """A few rows of a dataset as a model would read them: what was asked for, and what a worker made of it."""

    __tablename__ = "previews"
    __table_args__ = (_open_index("previews"),)

    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), index=True)
    request: Mapped[Json]
    content: Mapped[Json | None]
    project_id: Mapped[uuid.UUID] = _owner()


class Repair(Owned, Leased, Base):
    """The making again of a finished job's files, one of which is not what was published. The job does not change."""

    __tablename__ = "repairs"
    __table_args__ = (_open_index("repairs"), UniqueConstraint("job_id"))

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[uuid.UUID] = _owner()


class Estimate(Owned, Leased, Base):
    """What a job would take: the request of a job that was not submitted, and what a worker made of it."""

    __tablename__ = "estimates"
    __table_args__ = (_open_index("estimates"), Index("ix_estimates_created_at", "created_at"))

    dataset_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), index=True)
    request: Mapped[Json]
    content: Mapped[Json | None]
    project_id: Mapped[uuid.UUID] = _owner()


class Measurement(Base):
    """How long a stage took for so many rows and tokens on one device: what the time of later jobs is estimated from.

    `model` is the revision of the model, and `variant` what else decides how long a row takes, as in
    `app.core.lifecycle.measurements`. `size` is the product that the stage's work grows with.
    """

    __tablename__ = "measurements"
    __table_args__ = (
        Index("ix_measurements_of", "stage", "model", "device", "variant", text("id DESC")),
        Index("ix_measurements_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    stage: Mapped[str]
    model: Mapped[str]
    device: Mapped[str]
    variant: Mapped[str]
    rows: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[float]
    seconds: Mapped[float]


class Job(Owned, Leased, Resource, Base):
    """A selection job: the request as it was sent, its state, and where it is.

    Where the request names a webhook, a trigger has its message due with the final state; `webhook` is what came of it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _open_index("jobs"),
        # The few that `app.core.lifecycle.counts` has still to count.
        Index("ix_jobs_uncounted", "id", postgresql_where=text("finished_at IS NOT NULL AND NOT counted")),
        *_list_indexes("jobs"),
        Index("ix_jobs_project_id_state_created_at_id", *("project_id", "state"), *_NEWEST_FIRST),
        Index(
            "ix_jobs_project_id_dataset_uri",
            "project_id",
            text("(request #>> '{dataset,uri}'::text[])"),
            *_NEWEST_FIRST,
        ),
        Index("ix_jobs_webhook_due_at", "webhook_due_at", postgresql_where=text("webhook_due_at IS NOT NULL")),
        Index("ix_jobs_dataset_id_created_at_id", "dataset_id", *_NEWEST_FIRST),
    )

    name: Mapped[str | None]
    metadata_: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    dataset_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    request: Mapped[Json]
    priority: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    timeout_s: Mapped[float | None] = mapped_column(sort_order=11)
    stage: Mapped[Stage | None] = mapped_column(_text_enum(Stage, "stage"))
    progress: Mapped[Json | None]
    plan: Mapped[Json | None]
    result: Mapped[Json | None]
    project_id: Mapped[uuid.UUID] = _owner()
    rows: Mapped[int | None] = mapped_column(BigInteger)
    counted: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    webhook: Mapped[Json | None] = mapped_column(sort_order=30)
    webhook_due_at: Mapped[datetime | None] = mapped_column(sort_order=31)


class DeletedJob(Owned, Base):
    """The rows of a deleted job, which count in its project's quota for a day."""

    __tablename__ = "deleted_jobs"
    __table_args__ = (Index("ix_deleted_jobs_project_id_created_at", "project_id", "created_at"),)

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    rows: Mapped[int] = mapped_column(BigInteger)


class IdempotentAnswer(Owned, Base):
    """The answer that a POST with an Idempotency-Key got, kept in the transaction of what it tells of."""

    __tablename__ = "idempotent_answers"
    __table_args__ = (Index("ix_idempotent_answers_created_at", "created_at"),)

    project_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, default=DEFAULT_PROJECT
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int]
    headers: Mapped[Json]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobEvent(Base):
    """Something that happened to a job. Written by the trigger `tell_job` (triggers.sql) and by nothing else.

    So every statement that changes a job tells of it, in its own transaction. The ids of one job's events grow in
    the order of their commits.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        # Where a stage began: progress is told more and more rarely from there on.
        Index("ix_job_events_turns", "job_id", "id", postgresql_where=text("kind <> 'progress'")),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[EventKind] = mapped_column(_text_enum(EventKind, "event_kind"))
    data: Mapped[Json]


class Shard(Leased, Base):
    """Some consecutive samples of a job whose sketches one worker computes. The job is parked until all are done.

    A parked job is running and nobody holds its lease: its shards are what is worked on. A trigger adds their progress
    up in the job's own.
    """

    __tablename__ = "shards"
    __table_args__ = (
        _open_index("shards"),
        _units_index("shards"),
        UniqueConstraint("job_id", "number"),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    samples: Mapped[int]
    worker: Mapped[str | None]
    progress: Mapped[Json | None]
    tokens: Mapped[int | None] = mapped_column(BigInteger)


class Part(Leased, Base):
    """A random part of a job's samples that one worker selects from. The job is parked until all are done.

    What it picks stays here until the job has merged it: at most `budget` places among the usable samples and the
    gain of each, in the order of picking.
    """

    __tablename__ = "parts"
    __table_args__ = (
        _open_index("parts"),
        _units_index("parts"),
        UniqueConstraint("job_id", "number"),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    budget: Mapped[int]
    worker: Mapped[str | None]
    progress: Mapped[Json | None]
    picks: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    gains: Mapped[list[float] | None] = mapped_column(ARRAY(Double()))


class Proof(Owned, Leased, Resource, Base):
    """A proof: the request as it was sent, its state, and where it is.

    `job_id` is the selection job whose dataset, model, gradients and selection it takes; `own_job` says that it was
    made for the proof. While that job is open, and while runs are, the proof is parked as a job is for its shards.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        _open_index("proofs"),
        *_list_indexes("proofs"),
        Index("ix_proofs_job_id", "job_id"),
        Index("ix_proofs_webhook_due_at", "webhook_due_at", postgresql_where=text("webhook_due_at IS NOT NULL")),
    )

    name: Mapped[str | None]
    metadata_: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    own_job: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    request: Mapped[Json]
    timeout_s: Mapped[float | None] = mapped_column(sort_order=11)
    stage: Mapped[ProofStage | None] = mapped_column(_text_enum(ProofStage, "proof_stage"))
    progress: Mapped[Json | None]
    plan: Mapped[Json | None]
    result: Mapped[Json | None]
    project_id: Mapped[uuid.UUID] = _owner()
    webhook: Mapped[Json | None] = mapped_column(sort_order=30)
    webhook_due_at: Mapped[datetime | None] = mapped_column(sort_order=31)


class ProofRun(Leased, Base):
    """One training of a proof: an arm's rows with one seed. It stays with its outcome for as long as the proof.

    `key` is the content address of its outcome in the artifact store, where a later run with the same key finds it.
    """

    __tablename__ = "proof_runs"
    __table_args__ = (
        _open_index("proof_runs"),
        UniqueConstraint("proof_id", "arm", "seed"),
        Index("ix_proof_runs_key", "key"),
    )

    proof_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("proofs.id", ondelete="CASCADE"))
    arm: Mapped[str]
    seed: Mapped[int]
    key: Mapped[str]
    steps: Mapped[int]
    worker: Mapped[str | None]
    progress: Mapped[Json | None]
    outcome: Mapped[Json | None]
    reused: Mapped[bool] = mapped_column(default=False, server_default=text("false"))


class ProofEvent(Base):
    """Something that happened to a proof, as `JobEvent` is of a job; triggers on `proofs` write it."""

    __tablename__ = "proof_events"
    __table_args__ = (Index("ix_proof_events_turns", "proof_id", "id", postgresql_where=text("kind <> 'progress'")),)

    proof_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("proofs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[EventKind] = mapped_column(_text_enum(EventKind, "event_kind"))
    data: Mapped[Json]


class LineageEvent(Base):
    """Something of a job that is still to be told to the OpenLineage server, if there is one; written by a trigger.

    The trigger writes where the connection says `spice.lineage`, as those of a service with a server for it do.
    """

    __tablename__ = "lineage_events"
    __table_args__ = (Index("ix_lineage_events_job_id_id", "job_id", "id"), Index("ix_lineage_events_due_at", "due_at"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))


class Selection(Base):
    """The head of one selection of a job: the one asked for (label `main`) or a baseline."""

    __tablename__ = "selections"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str]
    selected: Mapped[int] = mapped_column(BigInteger)
    log_det: Mapped[float]
    conflicts: Mapped[Json]
    curve: Mapped[Json | None]


class SelectionChunk(Base):
    """Some consecutive picks of a selection, as arrays of equal length.

    One row a pick would cost 60 bytes of tuple and index overhead for 48 of data; arrays of some thousand picks
    stream at the speed of the wire, and memory is bounded by the chunk.
    """

    __tablename__ = "selection_chunks"
    __table_args__ = (
        ForeignKeyConstraint(["job_id", "label"], ["selections.job_id", "selections.label"], ondelete="CASCADE"),
        CheckConstraint(
            "cardinality(row_indices) = cardinality(marginal_gains)"
            " AND cardinality(row_indices) = cardinality(epsilons)"
            " AND cardinality(row_indices) = cardinality(conflicts)"
            " AND cardinality(row_indices) = cardinality(log_det)"
            " AND (stability IS NULL OR cardinality(row_indices) = cardinality(stability))"
            " AND (weights IS NULL OR cardinality(row_indices) = cardinality(weights))",
            name="equal_lengths",
        ),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    first_rank: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    row_indices: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    marginal_gains: Mapped[list[float]] = mapped_column(ARRAY(Double()))
    epsilons: Mapped[list[float]] = mapped_column(ARRAY(Double()))
    conflicts: Mapped[list[float]] = mapped_column(ARRAY(Double()))
    log_det: Mapped[list[float]] = mapped_column(ARRAY(Double()))
    stability: Mapped[list[float | None] | None] = mapped_column(ARRAY(Double()))
    weights: Mapped[list[float] | None] = mapped_column(ARRAY(Double()))


class RejectedRows(Base):
    """The rows of a job's dataset that could not be used, by reason."""

    __tablename__ = "rejected_rows"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    row_indices: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


class JobStatistics(Base):
    """What the figures of a finished job are drawn from: some 100 kB, so apart from the job, which lists show."""

    __tablename__ = "job_statistics"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    document: Mapped[Json]


class Worker(Base):
    """A worker process that was there a short while ago."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Counter(Base):
    """A counter of the service; see `app.core.lifecycle.counts`."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(primary_key=True)
    value: Mapped[float]
