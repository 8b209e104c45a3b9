"""Hold a claimed row during the work on it: extend its lease, report progress, hear of a cancel."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import SQLAlchemyError

from app.core.db.tables import State
from app.core.lifecycle import leases
from app.core.periodic import Periodic

if TYPE_CHECKING:
    from app.core.db.tables import ProofStage, Stage
    from app.core.lifecycle.leases import Lease, Signals
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)

DEAF_S = 2.5
"""Seconds after a cancel until the heartbeat ends the row itself: the work may be inside a library call that waits."""
RATE_AFTER_S = 0.5
"""Seconds of a stage before its rate is told: of a moment, a rate says nothing."""
HEARTBEAT_S = 1.0
"""Seconds between heartbeats: one statement a second shows progress, and stops work within seconds of a cancel."""


class LeaseHeartbeat:
    """Extends a lease in the background.

    The heartbeat writes the progress, so Postgres gets one UPDATE a second however often the work reports. While
    Postgres is away the work continues; the next heartbeat that succeeds shows whether the lease still holds.
    """

    def __init__(self, context: WorkerContext, lease: Lease) -> None:
        self.lease = lease
        self.cancelled = False
        self.lost = False
        self._cancelled_at: float | None = None
        self._context = context
        self._pending: dict[str, Any] = {}
        self._lock = threading.Lock()
        every_s = min(HEARTBEAT_S, context.settings.lease_s / 4)
        self._loop = Periodic(f"the heartbeat of {lease.table.__tablename__} {lease.id}", every_s, self._beat)

    def __enter__(self) -> Self:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the heartbeats; the lease is then released, or runs out."""
        self._loop.stop()

    def refresh(self) -> None:
        """Ask Postgres now, not with the next heartbeat, whether the lease holds and the row is not cancelled.

        Raises:
            SQLAlchemyError: Postgres does not answer.
        """
        with self._context.sessions() as session:
            self._hear(leases.extend(session, self.lease, self._context.settings.lease_s))

    def should_stop(self) -> bool:
        """Whether the work is to end early: cancelled, lost to another worker, or the process shuts down."""
        return self.cancelled or self.lost or self._context.stopping.is_set()

    def enter(self, stage: Stage | ProofStage, total: int | None, unit: str) -> Meter:
        """Begin a stage of a job or of a proof; heartbeats write what its meter counts.

        A stage that was shorter than a heartbeat is told first, so that nobody who follows the job misses it.
        """
        with self._lock:
            untold = self._pending.get("stage")
        if untold is not None and untold is not stage:
            self.tell()
        with self._lock:
            self._pending["stage"] = stage
        return self.begin(total, unit)

    def tell(self) -> None:
        """Write now what the next heartbeat would write."""
        with suppress(SQLAlchemyError):  # the next heartbeat finds out what it means
            self._beat()

    def begin(self, total: int | None, unit: str, done: int = 0) -> Meter:
        """Count units of another kind, from those that earlier work has done."""
        meter = Meter(self, total, unit, done)
        meter.at(done)
        return meter

    def set_progress(self, progress: dict[str, Any]) -> None:
        """Replace the progress that the next heartbeat writes."""
        with self._lock:
            self._pending["progress"] = progress

    def _beat(self) -> None:
        with self._lock:
            values, self._pending = self._pending, {}
        try:
            with self._context.sessions() as session:
                signals = leases.extend(session, self.lease, self._context.settings.lease_s, **values)
        except BaseException:  # the next heartbeat reports this progress
            with self._lock:
                self._pending = values | self._pending
            raise
        self._hear(signals)
        if self._is_deaf():
            self._cancel()
        if self.lost:
            logger.warning("%s: it is another worker's now, or wanted no more; this one stops", self.lease.id)
            self._loop.stop()

    def _is_deaf(self) -> bool:
        """Whether the work has not stopped long after its cancel."""
        if self.cancelled and self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
        return self._cancelled_at is not None and time.monotonic() - self._cancelled_at >= DEAF_S

    def _cancel(self) -> None:
        """End the row in place of the work, which then finds its lease lost."""
        with self._context.sessions() as session:
            leases.finish(session, self.lease, State.CANCELLED)
            session.commit()
        self.lost = True

    def _hear(self, signals: Signals) -> None:
        self.cancelled = signals.cancelled
        self.lost = not signals.held


class Meter:
    """Counts the units of one stage, with rate and time left."""

    def __init__(self, heartbeat: LeaseHeartbeat, total: int | None, unit: str, before: int = 0) -> None:
        self._heartbeat = heartbeat
        self._total = total
        self._unit = unit
        self._before = self._done = before
        self._tokens: int | None = None
        self._began = time.monotonic()

    @property
    def tokens(self) -> int:
        """Tokens counted so far; 0 where the work knows of none."""
        return self._tokens or 0

    def add(self, units: int, *, tokens: int | None = None) -> None:
        """Count more units, and the tokens in them where the work knows them: rows differ in length, tokens do not."""
        if tokens is not None:
            self._tokens = (self._tokens or 0) + tokens
        self.at(self._done + units)

    def at(self, done: int, total: int | None = None) -> None:
        """Set the units done, and the total once it is known."""
        self._done = done
        self._total = self._total if total is None else total
        elapsed = time.monotonic() - self._began
        known = elapsed >= RATE_AFTER_S
        since = done - self._before
        rate = since / elapsed if since > 0 and known else None
        token_rate = self._tokens / elapsed if self._tokens and known else None
        left = None if rate is None or self._total is None else max(self._total - done, 0) / rate
        self._heartbeat.set_progress(
            {
                "done": done,
                "total": self._total,
                "unit": self._unit,
                "rate": None if rate is None else round(rate, 3),
                "eta_s": None if left is None else round(left, 1),
                "tokens": self._tokens,
                "tokens_per_s": None if token_rate is None else round(token_rate, 1),
            }
        )
