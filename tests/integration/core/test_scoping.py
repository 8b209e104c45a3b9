"""Sessions of a project see its rows alone, whatever the statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import aliased

from app.access import projects
from app.core.db.scoping import project_sessions
from app.core.db.tables import DEFAULT_PROJECT, Dataset, Job, Shard, State
from app.core.lifecycle import leases

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions


@pytest.fixture
def ours(sessions: Sessions) -> Sessions:
    with sessions() as session:
        return project_sessions(sessions, projects.create(session, "ours").id)


@pytest.fixture
def their_job(sessions: Sessions) -> uuid.UUID:
    with sessions() as session:
        their = projects.create(session, "theirs").id
    with project_sessions(sessions, their)() as session:
        job = Job(request={}, name="secret")
        session.add_all([job, Dataset(uri="file:///theirs")])
        session.flush()
        session.add(Shard(job_id=job.id, number=0, samples=1))
        session.commit()
        assert job.project_id == their
        return job.id


other = aliased(Job)
READS: dict[str, Callable[[Session, Any], Any]] = {
    "entity": lambda s, _: s.scalars(select(Job)).all(),
    "get": lambda s, job_id: [job] if (job := s.get(Job, job_id)) else [],
    "column": lambda s, job_id: s.scalars(select(Job.name).where(Job.id == job_id)).all(),
    "count": lambda s, _: [None] * (s.scalar(select(func.count()).select_from(Job)) or 0),
    "alias": lambda s, _: s.scalars(select(other.name)).all(),
    "join": lambda s, _: s.scalars(select(Shard.number).join(Job, Job.id == Shard.job_id)).all(),
    "subquery": lambda s, _: s.scalars(select(Shard.number).where(Shard.job_id.in_(select(Job.id)))).all(),
    "exists": lambda s, _: s.scalars(select(Shard.number).where(exists().where(Job.id == Shard.job_id))).all(),
    "union": lambda s, _: s.execute(select(Job.id).union_all(select(Dataset.id))).all(),
    "dataset": lambda s, _: s.scalars(select(Dataset.uri)).all(),
}


@pytest.mark.parametrize("read", READS)
def test_no_read_finds_another_projects_rows(
    sessions: Sessions, ours: Sessions, their_job: uuid.UUID, read: str
) -> None:
    with ours() as session:
        assert list(READS[read](session, their_job)) == []
    with sessions() as session:
        assert list(READS[read](session, their_job)), (
            "without a project there is no fence, so the check above says much"
        )


def test_no_write_reaches_another_projects_rows(sessions: Sessions, ours: Sessions, their_job: uuid.UUID) -> None:
    with ours() as session:
        assert leases.request_cancel(session, Job, their_job) is None
        session.execute(update(Job).values(name="ours"))
        session.execute(delete(Dataset))
        session.execute(delete(Job))
        session.commit()
    with sessions() as session:
        job = session.get_one(Job, their_job)
        assert (job.name, job.state) == ("secret", State.QUEUED)
        assert session.scalars(select(Dataset.uri)).all() == ["file:///theirs"]


def test_two_projects_in_a_row_are_not_mixed_up(sessions: Sessions) -> None:
    """The fence is compiled once and cached: the project must not be cached with it."""
    made = []
    for name in ("a", "b", "c"):
        with sessions() as session:
            project = projects.create(session, name).id
        with project_sessions(sessions, project)() as session:
            session.add(Job(request={}, name=name))
            session.commit()
        made.append(project)
    for _ in range(2):
        for project, name in zip(made, ("a", "b", "c"), strict=True):
            with project_sessions(sessions, project)() as session:
                assert session.scalars(select(Job.name)).all() == [name]


def test_what_is_made_without_a_project_belongs_to_the_default_one(sessions: Sessions) -> None:
    with sessions() as session:
        session.add(Job(request={}))
        session.commit()
        assert session.scalars(select(Job.project_id)).all() == [DEFAULT_PROJECT]
