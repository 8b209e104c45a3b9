"""Give new events to all listeners of this process; one query serves all of them.

A listener is a coroutine and holds neither a database connection nor a thread. It asks for more events only after it
has sent the last ones, so events for a slow client never pile up in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from app.events import repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.core.db.engine import Sessions
    from app.events.repository import Event, Place

logger = logging.getLogger(__name__)

EVENTS_AT_ONCE = 500


class EventFeed:
    """Queries Postgres every `poll_s` seconds while a listener waits, also after a query failed."""

    def __init__(self, sessions: Sessions, poll_s: float) -> None:
        self._sessions = sessions
        self._poll_s = poll_s
        self._waiting: dict[Place, set[asyncio.Future[list[Event]]]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Feed the listeners of this event loop inside the block."""
        task = asyncio.create_task(self._run(), name="events")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def after(self, place: Place) -> list[Event]:
        """Wait for the events after a place; an empty list means that the job is gone."""
        future: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
        beside = self._waiting.setdefault(place, set())
        beside.add(future)
        try:
            return await future
        finally:
            beside.discard(future)
            if not beside:
                self._waiting.pop(place, None)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            if not self._waiting:
                continue
            try:
                found = await asyncio.to_thread(self._look, tuple(self._waiting))
            except SQLAlchemyError as error:
                logger.warning("the events could not be read, and are tried again: %s", error)
                continue
            except Exception:
                logger.exception("the events could not be read, and are tried again")
                continue
            for place, new in found.items():
                for future in self._waiting.pop(place, set()):
                    if not future.done():
                        future.set_result(new)

    def _look(self, places: tuple[Place, ...]) -> dict[Place, list[Event]]:
        with self._sessions() as session:
            return repository.after_each(session, places, EVENTS_AT_ONCE)
