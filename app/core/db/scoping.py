"""Restrict every statement of a project's sessions to the project's own rows. No other module does this.

A session that knows a project (`project_sessions`) adds `project_id = ...` to each SELECT, UPDATE and DELETE over a
table of `Owned` rows, wherever in the statement it stands, and gives the rows that it inserts to the project. A session
that knows none (workers, the reconciler, retention) sees all.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.orm import with_loader_criteria

from app.core.db.tables import DEFAULT_PROJECT, Owned

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker
    from sqlalchemy.orm.interfaces import ORMOption

PROJECT = "project_id"


def project_sessions(sessions: Callable[..., Session], project_id: uuid.UUID) -> Callable[..., Session]:
    """Sessions that see only the rows of one project."""
    return partial(sessions, info={PROJECT: project_id})


def project_of(session: Session) -> uuid.UUID:
    """The project that a session knows; the default one if it knows none."""
    project_id: uuid.UUID = session.info.get(PROJECT, DEFAULT_PROJECT)
    return project_id


def install(sessions: sessionmaker[Session]) -> None:
    """Restrict the sessions of a factory to their project, if they have one."""
    event.listen(sessions, "do_orm_execute", _own_rows_alone)
    event.listen(sessions, "before_flush", _own_new_rows)


def _own_rows_alone(state: ORMExecuteState) -> None:
    project_id = state.session.info.get(PROJECT)
    if project_id is not None and not state.is_column_load:
        state.statement = state.statement.options(*_fence(project_id))


@lru_cache(maxsize=1024)
def _fence(project_id: uuid.UUID) -> tuple[ORMOption, ...]:
    """The conditions of a project; kept, as making them takes longer than Postgres takes for them."""
    return tuple(
        with_loader_criteria(owned, owned.project_id == project_id, include_aliases=True)
        for owned in Owned.__subclasses__()
    )


def _own_new_rows(session: Session, *_: object) -> None:
    project_id = session.info.get(PROJECT)
    for row in session.new:
        if project_id is not None and isinstance(row, Owned):
            row.project_id = project_id
