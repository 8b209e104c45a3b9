"""`/healthz`: the process answers. `/readyz`: it can serve, or what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.db.migrate import revisions
from app.dependencies import QueueDep, ServiceSessionsDep  # noqa: TC001
from app.openapi import example, problems
from app.problems import Unavailable
from app.queue import QueueUnavailable
from app.schema import Response

if TYPE_CHECKING:
    from app.db.engine import Sessions
    from app.queue import TaskQueue

router = APIRouter(tags=["health"])


class Health(Response):
    """The answer of a healthy service."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Is the process alive?", responses=example(200, "It is.", {"status": "ok"}))
def healthz() -> Health:
    """Answers as long as the process does; asks nothing of other servers."""
    return Health()


@router.get(
    "/readyz",
    summary="Can the service serve?",
    responses=example(200, "It can.", {"status": "ok"})
    | problems((Unavailable, "redis does not answer; the schema is at 0001, not at 0002: run `spice migrate`")),
)
def readyz(sessions: ServiceSessionsDep, queue: QueueDep) -> Health:
    """Asks Postgres, its schema and Redis; 503 with all that is missing."""
    missing = [*_database_faults(sessions), *_queue_faults(queue)]
    if missing:
        raise Unavailable("; ".join(missing))
    return Health()


def _database_faults(sessions: Sessions) -> list[str]:
    try:
        with sessions() as session:
            session.execute(text("SELECT 1"))
            present, wanted = revisions(session.connection())
    except SQLAlchemyError:
        return ["postgres does not answer: see SPICE_DATABASE_URL"]
    if present != wanted:
        return [f"the schema is at {present or 'nothing'}, not at {wanted}: run `spice migrate`"]
    return []


def _queue_faults(queue: TaskQueue) -> list[str]:
    try:
        queue.ping()
    except QueueUnavailable:
        return ["redis does not answer: see SPICE_REDIS_URL"]
    return []
