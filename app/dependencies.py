"""What endpoints are given: the process's settings, queue and database sessions, by type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.artifacts import ArtifactStore
from app.db.engine import Sessions
from app.queue import TaskQueue
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Resources:
    """What one API process holds for all requests."""

    settings: Settings
    sessions: Sessions
    queue: TaskQueue
    artifacts: ArtifactStore


def resources(request: Request) -> Resources:
    """The resources that the lifespan made."""
    return cast("Resources", request.app.state.resources)


def _session(request: Request) -> Iterator[Session]:
    with resources(request).sessions() as session:
        yield session


def _sessions(request: Request) -> Sessions:
    return resources(request).sessions


def _queue(request: Request) -> TaskQueue:
    return resources(request).queue


def _settings(request: Request) -> Settings:
    return resources(request).settings


def _artifacts(request: Request) -> ArtifactStore:
    return resources(request).artifacts


SessionDep = Annotated[Session, Depends(_session)]
SessionsDep = Annotated[Sessions, Depends(_sessions)]
QueueDep = Annotated[TaskQueue, Depends(_queue)]
SettingsDep = Annotated[Settings, Depends(_settings)]
ArtifactsDep = Annotated[ArtifactStore, Depends(_artifacts)]
