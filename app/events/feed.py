"""New events for everyone in this process who waits for some: one look at Postgres serves them all.

A listener is a coroutine: it holds neither a database connection nor a thread. It asks again only when it has handed on
what it got, so a slow client piles nothing up here.
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
    """Looks every `poll_s` seconds while anybody waits; an unreachable Postgres is asked again."""

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
        """The events after a place, as soon as there is one; none once the job is gone."""
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
