"""A worker says that it is there: a row in Postgres, every few seconds, however deep it is in its work."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from sqlalchemy.exc import SQLAlchemyError

from app.core.lifecycle import fleet

if TYPE_CHECKING:
    from workers.runtime.context import Process

logger = logging.getLogger(__name__)

EVERY_S = 10.0


class Presence:
    """Says so in the background from entering to leaving; a worker that is killed is missed after `fleet.ALIVE_S`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            with self._process.sessions() as session:
                fleet.leave(session, self._process.name)
        except SQLAlchemyError as error:
            logger.debug("Postgres does not answer, so this worker is missed later: %s", error)

    def _tell(self) -> None:
        while True:
            try:
                with self._process.sessions() as session:
                    fleet.appear(session, self._process.name, self._process.settings.worker_queues)
            except SQLAlchemyError as error:
                logger.debug("Postgres does not answer: %s", error)
            if self._ended.wait(EVERY_S):
                return
