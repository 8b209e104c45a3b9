"""The dependencies of endpoints that features share, by type; what one feature uses alone is in its router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.core.db.engine import Sessions
from app.core.db.scoping import project_sessions
from app.core.queue import TaskQueue
from app.core.settings import Settings
from app.core.storage import ArtifactStore
from app.http.principal import READING, principal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True, slots=True)
class Resources:
    """The connections and settings that one API process shares between all requests, at `app.state.resources`."""

    settings: Settings
    sessions: Sessions
    reading: Sessions
    queue: TaskQueue
    artifacts: ArtifactStore


def resources(request: Request) -> Resources:
    """The resources of this process, made at its start."""
    return cast("Resources", request.app.state.resources)


# Coroutines, as all dependencies of routes are, though they wait for nothing: FastAPI would hand each plain function or
# class to a thread.


async def sessions_of(request: Request) -> Sessions:
    """Sessions that see only the rows of the request's project; read-only sessions for GET and HEAD."""
    held, principal = resources(request), principal_of(request)
    sessions = held.reading if request.method in READING else held.sessions
    return project_sessions(sessions, principal.project_id)


SessionsDep = Annotated[Sessions, Depends(sessions_of)]


async def _writing_sessions(request: Request) -> Sessions:
    return project_sessions(resources(request).sessions, principal_of(request).project_id)


WritingSessionsDep = Annotated[Sessions, Depends(_writing_sessions)]
"""Sessions of the request's project that write, even where the request only reads."""


async def _session(request: Request, sessions: SessionsDep) -> AsyncIterator[Session]:
    session = sessions()
    try:
        yield session
    finally:
        if request.method in READING or not session.in_transaction():
            session.close()  # costs no round trip
        else:
            await to_thread.run_sync(session.close)


async def _service_sessions(request: Request) -> Sessions:
    return resources(request).sessions


async def _queue(request: Request) -> TaskQueue:
    return resources(request).queue


async def _settings(request: Request) -> Settings:
    return resources(request).settings


async def _artifacts(request: Request) -> ArtifactStore:
    return resources(request).artifacts


SessionDep = Annotated[Session, Depends(_session)]
ServiceSessionsDep = Annotated[Sessions, Depends(_service_sessions)]
"""Sessions without a project: for what tells nothing of jobs and datasets."""
QueueDep = Annotated[TaskQueue, Depends(_queue)]
SettingsDep = Annotated[Settings, Depends(_settings)]
ArtifactsDep = Annotated[ArtifactStore, Depends(_artifacts)]
