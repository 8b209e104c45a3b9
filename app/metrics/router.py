"""`/metrics`, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.http.dependencies import QueueDep, ServiceSessionsDep  # noqa: TC001
from app.http.openapi import example, problems
from app.http.problems import ScopeMissing
from app.metrics.fleet import Fleet

router = APIRouter(tags=["health"])

EXAMPLE = """\
# HELP spice_queue_depth Rows in Postgres that wait for a worker.
# TYPE spice_queue_depth gauge
spice_queue_depth{queue="selection"} 2.0
spice_queue_depth{queue="gradients"} 41.0
"""


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=example(200, "In the text format, or in OpenMetrics if that is asked for.", EXAMPLE, "text/plain")
    | problems((ScopeMissing, "GET /metrics needs the scope admin, and the key has read.")),
)
def metrics(request: Request, sessions: ServiceSessionsDep, queue: QueueDep) -> Response:
    """Requests of this process; queues, jobs, stages and workers of the whole service. Needs an `admin` key."""
    accept = request.headers.get("accept", "")
    text, media_type = request.app.state.metrics.exposition(accept, Fleet(sessions, queue))
    return Response(text, media_type=media_type)
