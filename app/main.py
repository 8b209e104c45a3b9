"""The HTTP application."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app.access.authentication import Access, Authentication
from app.access.key_ring import KeyRing
from app.access.rate_limits import RateLimits
from app.core.db.engine import make_engine, make_reading_sessions, make_sessions
from app.core.periodic import Periodic
from app.core.queue import TaskQueue
from app.core.settings import Settings, get_settings
from app.core.storage import open_artifacts
from app.core.telemetry import tracing
from app.datasets.router import router as datasets
from app.events.feed import EventFeed
from app.events.router import router as events
from app.files.router import router as files
from app.health.readiness import Probes
from app.health.router import router as health
from app.housekeeping import lineage
from app.housekeeping.expiry import expire
from app.housekeeping.reconciler import reconcile
from app.housekeeping.retention import sweep
from app.http import problems
from app.http.body_limit import BodyLimit, MostBytes
from app.http.caching import NotModified, not_modified
from app.http.dependencies import Resources
from app.http.middleware import CommonHeaders, Gzip, Head
from app.http.openapi import announce_problems
from app.http.request_log import Telemetry
from app.jobs.estimates_router import router as estimates
from app.jobs.router import router as jobs
from app.metrics.requests import Metrics
from app.metrics.router import router as metrics
from app.proofs.router import router as proofs
from app.reports.router import router as reports
from app.results.comparison import router as comparison
from app.results.router import router as results
from app.results.rows_router import router as picked_rows
from app.web import pages, reference
from app.webhooks.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.core.db.engine import Sessions
    from app.core.storage import ArtifactStore

logger = logging.getLogger(__name__)

ROUTERS = (
    *(jobs, estimates, events, results, comparison, picked_rows, reports),
    *(proofs, datasets, files, health, metrics),
)
GZIP_FROM_BYTES, GZIP_LEVEL = 1024, 5
FIRST_SWEEP_S = 60.0
STATEMENT_S = 15.0
"""Seconds that a statement of a request may take. Periodic work may take longer."""

DESCRIPTION = """
Post a dataset URI and a budget; a worker computes a gradient for every row and picks the subset with the most
information and the least gradient conflict. Poll the job, then download indices or rows, the log-det curve, the
conflict statistics and a proven bound on how good the subset is.

Every error is `application/problem+json` with a stable `type`.
"""


def periodic_work(
    sessions: Sessions, queue: TaskQueue, artifacts: ArtifactStore, delivery: Delivery, settings: Settings
) -> tuple[Periodic, ...]:
    """The periodic loops of an API process; any number of processes may run them at the same time."""
    first_sweep_s = min(FIRST_SWEEP_S, settings.retention_s)
    loops = [
        Periodic("reconciler", settings.reconcile_s, partial(reconcile, sessions, queue, settings)),
        Periodic(
            "retention", settings.retention_s, partial(sweep, sessions, artifacts, settings), first_s=first_sweep_s
        ),
        Periodic("expiry", settings.expiry_s, partial(expire, sessions, artifacts, settings)),
        Periodic("webhooks", settings.webhook_poll_s, delivery.turn),
    ]
    if settings.lineage_url is not None:
        loops.append(Periodic("lineage", lineage.EVERY_S, partial(lineage.send_due, sessions, settings)))
    return tuple(loops)


@asynccontextmanager
async def _serving(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    """What requests share, at `app.state`, and the periodic work: from the application's start to its end."""
    if settings.traces == "otlp":
        tracing.start("spice-api")
    engine, background = make_engine(settings, STATEMENT_S), make_engine(settings)
    queue = TaskQueue(settings)
    sessions, unlimited = make_sessions(engine), make_sessions(background)
    artifacts = open_artifacts(settings)
    keys, rate_limits = KeyRing(sessions, settings.auth_cache_s), RateLimits(settings)
    feed = EventFeed(sessions, settings.events_poll_s)
    delivery = Delivery(unlimited, settings)
    loops = periodic_work(unlimited, queue, artifacts, delivery, settings)
    probes = Probes(sessions, queue, artifacts, loops)
    app.state.resources = Resources(
        settings=settings, sessions=sessions, reading=make_reading_sessions(engine), queue=queue, artifacts=artifacts
    )
    app.state.access = Access(settings, keys, rate_limits)
    app.state.feed = feed
    app.state.probes = probes
    for loop in loops:
        loop.start()
    try:
        async with feed.running():
            yield
    finally:
        for loop in reversed(loops):
            loop.stop(wait=loop.name == "reconciler")
        delivery.close()
        probes.close()
        queue.close()
        await rate_limits.close()
        engine.dispose()
        background.dispose()
        tracing.stop()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application. It connects to servers at its start, not here."""
    settings = settings or get_settings()
    app = FastAPI(
        title="SPICE data selection",
        summary="Data selection as a service for LLM fine-tuning.",
        description=DESCRIPTION,
        version=version("spice-select"),
        docs_url=None,  # FastAPI's own pages are loaded from other hosts: see `app.web.reference`
        redoc_url=None,
        lifespan=partial(_serving, settings),
    )
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app, logger)
    announce_problems(app)
    reference.install(app)
    pages.install(app)
    app.state.metrics = Metrics()
    app.add_exception_handler(NotModified, not_modified)
    app.add_middleware(
        BodyLimit,
        usual=MostBytes(
            settings.request_max_bytes,
            "a request may have (SPICE_REQUEST_MAX_BYTES): send less; data is read from the dataset's URI",
        ),
        of_paths={
            "/files": MostBytes(
                settings.upload_max_bytes,
                "an uploaded file may have (SPICE_UPLOAD_MAX_BYTES): compress it (.gz or .zst), split it, or put it "
                "where the service reads (SPICE_ALLOWED_ROOTS)",
            )
        },
    )
    app.add_middleware(Authentication)
    app.add_middleware(Gzip, minimum_size=GZIP_FROM_BYTES, compresslevel=GZIP_LEVEL)
    app.add_middleware(Head)
    app.add_middleware(CommonHeaders)
    app.add_middleware(Telemetry, metrics=app.state.metrics)  # the last is the outermost
    return app
