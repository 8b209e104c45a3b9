"""What a process writes, in a file that does not grow without end."""

from __future__ import annotations

import contextlib
import logging
import time
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BYTES = 10 * 1024**2
EARLIER_FILES = 3


class _Lines(RotatingFileHandler):
    """That drops a line which the disk does not take: the terminal has it, and what is served is not to end of it."""

    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing, where logging would print a traceback for each line."""


class OutputLog:
    """A file of lines; when it is full it is put aside as `.1`, and the oldest of those is dropped."""

    def __init__(self, path: Path, *, dated: bool = False) -> None:
        """Name the file; it is opened at the first line.

        Args:
            path: The file.
            dated: Put the time before each line.
        """
        self.path = path
        self._handler: RotatingFileHandler | None = None
        self._formatter = logging.Formatter("%(asctime)sZ %(message)s" if dated else "%(message)s")
        self._formatter.converter = time.gmtime
        self._formatter.default_msec_format = "%s.%03d"

    def write(self, line: str) -> None:
        """Append a line."""
        if self._handler is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Lines(self.path, maxBytes=BYTES, backupCount=EARLIER_FILES)
            self._handler.setFormatter(self._formatter)
        self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, (), None))

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._handler is not None:
            with contextlib.suppress(OSError):  # of what was to be written still
                self._handler.close()
            self._handler = None
