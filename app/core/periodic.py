"""The one loop for work that is done again and again: nothing that the work raises ends it, and it can be watched."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy.exc import SQLAlchemyError

from app.core.queue import QueueUnavailable
from app.core.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SERVER_AWAY: Final = (SQLAlchemyError, QueueUnavailable, StorageFailed)
"""What the work raises where a server does not answer: told in a line, as a traceback would add nothing."""
PATIENCE_S: Final = 60.0
"""How much longer than usual a turn may take, or turns may fail, before the loop counts as standing still."""


class Periodic:
    """Does its work on a thread of its own every `every_s` seconds, from `start` to `stop`.

    A turn that fails is logged, and the next one comes as always.
    """

    def __init__(self, name: str, every_s: float, work: Callable[[], object], *, first_s: float | None = None) -> None:
        """Describe the loop; nothing is started.

        Args:
            name: What the log calls it.
            every_s: Seconds between the end of a turn and the next one.
            work: Does one turn.
            first_s: Seconds before the first turn; None: as between turns.
        """
        self.name = name
        self.every_s = every_s
        self._work = work
        self._first_s = every_s if first_s is None else first_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._done_at = time.monotonic()
        self._failure: str | None = None

    def start(self) -> Self:
        """Begin with the waiting before the first turn."""
        self._done_at = time.monotonic() + self._first_s
        self._thread.start()
        return self

    def stop(self, *, wait: bool = True) -> None:
        """Ask the loop to end, and return once it has, unless this is not to `wait` or its own work asks."""
        self._stopped.set()
        if wait and self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def standstill(self) -> str | None:
        """Why the loop does not turn; None while it does."""
        if not self._thread.is_alive():
            return "is not running"
        late_s = time.monotonic() - self._done_at - self.every_s
        if late_s <= max(PATIENCE_S, 2 * self.every_s):
            return None
        return f"has done nothing for {late_s + self.every_s:.0f} s ({self._failure or 'a turn does not end'})"

    def _run(self) -> None:
        pause_s = self._first_s
        while not self._stopped.wait(pause_s):
            pause_s = self.every_s
            try:
                self._work()
            except SERVER_AWAY as error:
                self._failure = type(error).__name__
                logger.warning("%s failed, and is tried again: %s", self.name, error)
            except Exception as error:
                self._failure = type(error).__name__
                logger.exception("%s failed, and is tried again", self.name)
            else:
                self._failure = None
                self._done_at = time.monotonic()
