"""The origin of the current work: the request that asked for it, and the row that it changes.

The API writes the origin into each row that it queues (`Leased.origin`), and the worker that claims the row reads it.
The worker's log lines and spans therefore name the request, also after the row was queued again.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.core.telemetry import tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_ID = "request_id"
TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class Context:
    """The ids that every log line names.

    Attributes:
        request_id: The request that asked for the work.
        work: The row that the work changes, as `jobs 7d5f...`.
    """

    request_id: str | None = None
    work: str | None = None


_context: ContextVar[Context] = ContextVar("context", default=Context())  # noqa: B039 - it is frozen


def context() -> Context:
    """The context of the current work."""
    return _context.get()


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Set the context for the handling of a request."""
    token = _context.set(Context(request_id))
    try:
        yield
    finally:
        _context.reset(token)


def noted() -> dict[str, Any] | None:
    """The current origin, for a new row of the queue; None without request and span."""
    found = {REQUEST_ID: _context.get().request_id, TRACEPARENT: tracing.traceparent()}
    return {name: value for name, value in found.items() if value} or None


@contextmanager
def taken_up(origin: dict[str, Any] | None, table: str, row_id: object) -> Iterator[None]:
    """Set the context for work on a row: log lines name its request, and spans are children of the request's span."""
    origin = origin or {}
    token = _context.set(Context(origin.get(REQUEST_ID), f"{table} {row_id}"))
    try:
        with tracing.span(
            f"work {table}", parent=origin.get(TRACEPARENT), attributes={f"spice.{table}.id": str(row_id)}
        ):
            yield
    finally:
        _context.reset(token)
