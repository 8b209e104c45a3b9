"""Whose turn it is: which of all rows that wait a free worker takes.

Four rules, in this order:

1. Projects take turns. The project whose last turn is longest ago comes first, however many rows another one has
   queued: a project's only job waits for at most the unit of work at hand.
2. Within a project, what belongs to a job of higher priority comes first. Previews, registrations,
   estimates and repairs, which are short and whose clients wait for them, have the highest.
3. What is begun is finished before something new begins: jobs whose shards or parts are done, then shards and parts,
   then new jobs.
4. The older job comes first, and its shards in order.

A new job waits while a job over the same data and model is being read: afterwards the tokens are there for both.

A selection may take long, and gives way meanwhile; a schedule is handed back: `workers.runtime.giving_way`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, and_, case, func, literal, or_, select, true, union_all, update
from sqlalchemy.orm import aliased

from app.core.contracts.job_request import PRIORITIES
from app.core.db.tables import (
    Dataset,
    Estimate,
    Job,
    Part,
    Preview,
    Project,
    Proof,
    ProofRun,
    Repair,
    Shard,
    Stage,
    State,
)
from app.core.lifecycle.leases import Waiting

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from app.core.lifecycle.leases import Work

TURNS_LOCK = 7_301_955_027
"""Any fixed number. Workers choose one after the other, or two would choose the same row and the same project."""

SHORT, BEGUN, UNIT, NEW = range(4)
HIGHEST = max(PRIORITIES.values())
ORDINARY = PRIORITIES["normal"]
"""Of proofs, which have no priority of their own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker is at."""

    project_id: uuid.UUID
    priority: int


def next_row(session: Session, tables: Collection[Work], during: Turn | None = None) -> Waiting | None:
    """The row whose turn it is, and its project's turn is taken; commits.

    Args:
        session: For this transaction alone.
        tables: Whose rows the worker serves.
        during: What the worker is at: only rows of other projects, and those of a higher priority, come in between.

    Returns:
        None if nothing waits. Another worker may claim the row first: ask again then.
    """
    session.execute(select(func.pg_advisory_xact_lock(TURNS_LOCK)))
    waiting = union_all(*(_WAITING[table]() for table in tables)).subquery()
    between = [] if during is None else [_comes_between(waiting.c, during)]
    chosen = session.execute(
        select(waiting)
        .join(Project, Project.id == waiting.c.project_id)
        .where(*between)
        .order_by(
            Project.served_at.asc().nulls_first(),
            waiting.c.priority.desc(),
            waiting.c.rank,
            waiting.c.since,
            waiting.c.number,
        )
        .limit(1)
    ).one_or_none()
    if chosen is not None:
        session.execute(update(Project).where(Project.id == chosen.project_id).values(served_at=func.clock_timestamp()))
    session.commit()
    if chosen is None:
        return None
    table = next(table for table in tables if table.__tablename__ == chosen.table_name)
    return Waiting(table, chosen.id, chosen.dispatch)


def others_wait(session: Session, tables: Collection[Work], during: Turn) -> bool:
    """Whether a row waits that has its turn before what the worker is at, were that to wait too; no turn is taken.

    Args:
        session: For this transaction.
        tables: Whose rows the worker serves.
        during: What the worker is at.
    """
    waiting = union_all(*(_WAITING[table]() for table in tables)).subquery()
    own = select(Project.served_at).where(Project.id == during.project_id).scalar_subquery()
    another, urgent = waiting.c.project_id != during.project_id, waiting.c.priority > during.priority
    served_longer_ago = or_(Project.served_at.is_(None), Project.served_at < own)
    comes_first = or_(and_(another, served_longer_ago), and_(~another, urgent))
    found = select(waiting.c.id).join(Project, Project.id == waiting.c.project_id).where(comes_first)
    return bool(session.scalar(select(found.exists())))


def _comes_between(columns: Any, during: Turn) -> ColumnElement[bool]:  # noqa: ANN401 - SQLAlchemy's own type
    return or_(columns.project_id != during.project_id, columns.priority > during.priority)


def _row(
    table: Work,
    project_id: Any,  # noqa: ANN401 - a column
    since: Any,  # noqa: ANN401 - likewise
    *,
    priority: Any = literal(HIGHEST),  # noqa: ANN401, B008 - likewise
    rank: Any = literal(SHORT),  # noqa: ANN401, B008 - likewise
    number: Any = literal(0),  # noqa: ANN401, B008 - likewise
) -> Select[Any]:
    return select(
        literal(table.__tablename__, String).label("table_name"),
        table.id.label("id"),
        table.dispatch.label("dispatch"),
        project_id.label("project_id"),
        priority.label("priority"),
        rank.label("rank"),
        since.label("since"),
        number.label("number"),
    )


def _due(table: Work) -> ColumnElement[bool]:
    """Queued, and not put off until something that is away may be back."""
    return and_(table.state == State.QUEUED, table.queued_at <= func.now())


def _datasets() -> Select[Any]:
    return _row(Dataset, Dataset.project_id, Dataset.created_at).where(_due(Dataset))


def _previews() -> Select[Any]:
    return _row(Preview, Preview.project_id, Preview.created_at).where(_due(Preview))


def _repairs() -> Select[Any]:
    return _row(Repair, Repair.project_id, Repair.created_at).where(_due(Repair))


def _estimates() -> Select[Any]:
    return _row(Estimate, Estimate.project_id, Estimate.created_at).where(_due(Estimate))


def _jobs() -> Select[Any]:
    reading = aliased(Job)
    same_data = (
        select(reading.id)
        .where(
            reading.state == State.RUNNING,
            or_(reading.stage.is_(None), reading.stage == Stage.READING),  # null: claimed a moment ago
            reading.lease_token.is_not(None),
            reading.project_id == Job.project_id,
            reading.request["dataset"] == Job.request["dataset"],
            reading.request["model"] == Job.request["model"],
        )
        .exists()
    )
    rank = case((Job.started_at.is_(None), NEW), else_=BEGUN)
    return _row(Job, Job.project_id, Job.created_at, priority=Job.priority, rank=rank).where(
        _due(Job), or_(Job.started_at.is_not(None), ~same_data)
    )


def _units(table: type[Shard] | type[Part]) -> Select[Any]:
    """The first unit that waits of each parked job: an index finds it, however many there are."""
    unit = aliased(table)
    first = (
        select(unit.id)
        .where(unit.job_id == Job.id, unit.state == State.QUEUED, unit.queued_at <= func.now())
        .order_by(unit.number)
        .limit(1)
        .lateral()
    )
    return (
        _row(table, Job.project_id, Job.created_at, priority=Job.priority, rank=literal(UNIT), number=table.number)
        .select_from(Job)
        .join(first, true())
        .join(table, table.id == first.c.id)
        .where(Job.state == State.RUNNING, Job.lease_token.is_(None))
    )


def _proofs() -> Select[Any]:
    rank = case((Proof.started_at.is_(None), NEW), else_=BEGUN)
    return _row(Proof, Proof.project_id, Proof.created_at, priority=literal(ORDINARY), rank=rank).where(_due(Proof))


def _proof_runs() -> Select[Any]:
    """The runs of parked proofs, seed by seed, so that the arms of one seed are done together."""
    ordinary, rank = literal(ORDINARY), literal(UNIT)
    return (
        _row(ProofRun, Proof.project_id, Proof.created_at, priority=ordinary, rank=rank, number=ProofRun.seed)
        .select_from(ProofRun)
        .join(Proof, Proof.id == ProofRun.proof_id)
        .where(_due(ProofRun), Proof.state == State.RUNNING, Proof.lease_token.is_(None))
    )


_WAITING: dict[Work, Callable[[], Select[Any]]] = {
    Dataset: _datasets,
    Estimate: _estimates,
    Preview: _previews,
    Repair: _repairs,
    Job: _jobs,
    Part: partial(_units, Part),
    Proof: _proofs,
    Shard: partial(_units, Shard),
    ProofRun: _proof_runs,
}
