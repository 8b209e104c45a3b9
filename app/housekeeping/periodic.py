"""Work of an API process that is done again and again."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from app.core.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Periodic(threading.Thread):
    """Does its work every `every_s` seconds until `stop`; what an unreachable server kept from it is tried again."""

    def __init__(self, name: str, every_s: float, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self._work = work
        self._stopped = threading.Event()

    def run(self) -> None:
        """Wait, work, wait again."""
        while not self._stopped.wait(self._every_s):
            try:
                self._work()
            except (StorageFailed, SQLAlchemyError) as error:
                logger.warning("%s failed, and is tried again: %s", self.name, error)
            except Exception:
                logger.exception("%s failed, and is tried again", self.name)

    def stop(self) -> None:
        """Ask it to end; work that is under way is not waited for."""
        self._stopped.set()
