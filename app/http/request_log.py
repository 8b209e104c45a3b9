"""Give every request an id, a line in the log, a place in the metrics and a span. Pure ASGI."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Final, Protocol

from starlette.datastructures import Headers, MutableHeaders

from app.core.telemetry import origin, tracing

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("app.access_log")

HEADER: Final = "X-Request-ID"
SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
UNKNOWN_ROUTE: Final = "unknown"
FAILED: Final = 500


class RequestMetrics(Protocol):
    """Counts requests."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        ...


class Telemetry:
    """Records each request. It is the outermost middleware, because it has to see the answers of all others."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record it when the last byte of its answer is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get(HEADER))
        status = FAILED
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        with origin.request(request_id), tracing.span(method, parent=headers.get("traceparent"), server=True) as span:
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - began
                route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
                self._metrics.request(method, route, status, seconds)
                if span is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attributes(
                        {"http.request.method": method, "http.route": route, "http.response.status_code": status}
                    )
                _log(method, scope["path"], status, seconds)


def _request_id(given: str | None) -> str:
    """The request id that the client sent, if a log may repeat it; else a new id."""
    return given if given is not None and SANE.fullmatch(given) else uuid.uuid4().hex


def _log(method: str, path: str, status: int, seconds: float) -> None:
    """Log server errors as warnings, changes as info, and reads, which pollers make all the time, as debug."""
    level = logging.WARNING if status >= FAILED else logging.DEBUG if method in READING else logging.INFO
    if logger.isEnabledFor(level):
        facts = {"method": method, "path": path, "status": status, "ms": round(1000 * seconds, 1)}
        logger.log(level, "%s %r %d", method, path, status, extra=facts)
