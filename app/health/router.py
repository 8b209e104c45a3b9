"""`/healthz`: the process answers. `/readyz`: it can serve, or what is missing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request

from app.core.contracts.schema import Response
from app.health.readiness import Check, Probes
from app.http.openapi import example, problems
from app.http.problems import Unavailable

router = APIRouter(tags=["health"])


async def _probes(request: Request) -> Probes:
    probes: Probes = request.app.state.probes
    return probes


EXAMPLE_CHECKS: list[dict[str, Any]] = [
    {"name": "postgres", "ok": True, "required": True, "detail": "answers", "remedy": None},
    {
        "name": "worker gradients",
        "ok": False,
        "required": False,
        "detail": "no worker that serves gradients was seen in the last 35 s",
        "remedy": "start one: SPICE_WORKER_QUEUES=gradients spice worker",
    },
]


class Health(Response):
    """The body of `/healthz`."""

    status: Literal["ok"] = "ok"


class Readiness(Response):
    """The body of `/readyz` with status 200; a check that is not ok is a warning."""

    status: Literal["ok"] = "ok"
    checks: list[Check]


@router.get("/healthz", summary="Is the process alive?", responses=example(200, "It is.", {"status": "ok"}))
def healthz() -> Health:
    """Answers as long as the process does; asks nothing of other servers."""
    return Health()


@router.get(
    "/readyz",
    summary="Can the service serve?",
    responses=example(200, "It can.", {"status": "ok", "checks": EXAMPLE_CHECKS})
    | problems((Unavailable, "Redis does not answer: see SPICE_REDIS_URL; the schema is at 0001, not at 0002: ...")),
)
def readyz(probes: Annotated[Probes, Depends(_probes)]) -> Readiness:
    """Tries Postgres, its schema, Redis and the artifact store by writing, within 2 s; 503 says what is missing."""
    found = probes.checks()
    missing = [f"{check.detail}: {check.remedy}" for check in found if check.required and not check.ok]
    if missing:
        raise Unavailable("; ".join(missing), checks=[check.model_dump() for check in found])
    return Readiness(checks=found)
