"""Where the work at hand came from: the request that asked for it, and the row that it is about.

The API notes the origin in each row that it queues (`Leased.origin`); the worker that claims the row takes it up. So a
line in the worker's log, and its spans, name the request that began it all, however often the row was queued again.
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
    """What every line of the log names.

    Attributes:
        request_id: The request that the work came from.
        work: The row that is worked on, as `jobs 7d5f...`.
    """

    request_id: str | None = None
    work: str | None = None


_context: ContextVar[Context] = ContextVar("context", default=Context())  # noqa: B039 - it is frozen


def context() -> Context:
    """What the work at hand is."""
    return _context.get()


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Work for a request."""
    token = _context.set(Context(request_id))
    try:
        yield
    finally:
        _context.reset(token)


def noted() -> dict[str, Any] | None:
    """The origin of the work at hand, for a row that is queued now; None if there is nothing to tell."""
    found = {REQUEST_ID: _context.get().request_id, TRACEPARENT: tracing.traceparent()}
    return {name: value for name, value in found.items() if value} or None


@contextmanager
def taken_up(origin: dict[str, Any] | None, table: str, row_id: object) -> Iterator[None]:
    """Work on a row whose origin was noted: log lines name both, and a span is the child of the request's."""
    origin = origin or {}
    token = _context.set(Context(origin.get(REQUEST_ID), f"{table} {row_id}"))
    try:
        with tracing.span(
            f"work {table}", parent=origin.get(TRACEPARENT), attributes={f"spice.{table}.id": str(row_id)}
        ):
            yield
    finally:
        _context.reset(token)
