"""A worker reports that it is alive: it updates its row in Postgres every few seconds, also during long work.

At its start it reports workers of its machine that were killed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from sqlalchemy.exc import SQLAlchemyError

from app.core.lifecycle import fleet
from app.core.periodic import Periodic
from workers.runtime import sudden_ends

if TYPE_CHECKING:
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)

EVERY_S = 10.0


class Presence:
    """Reports from a thread of its own inside the block; a killed worker counts as gone after `fleet.ALIVE_S`."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._loop = Periodic("presence", EVERY_S, self._tell, first_s=0.0)

    def __enter__(self) -> Self:
        sudden_ends.tell(self._context.settings)
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()
        try:
            with self._context.sessions() as session:
                fleet.leave(session, self._context.name)
        except SQLAlchemyError as error:
            logger.debug("Postgres does not answer, so this worker is missed later: %s", error)
        sudden_ends.end_in_order(self._context.settings)

    def _tell(self) -> None:
        try:
            sudden_ends.note(self._context.settings)
        except OSError as error:
            logger.debug("the cache takes no file, so a sudden end of this worker will not be told: %s", error)
        with self._context.sessions() as session:
            fleet.appear(session, self._context.name, self._context.settings.worker_queues)
