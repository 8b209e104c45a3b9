"""The output of a process, in a file that does not grow without end."""

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


class OutputLog(RotatingFileHandler):
    """A file of lines; a full file is put aside as `.1`, and the oldest of those is deleted."""

    def __init__(self, path: Path, *, dated: bool = False) -> None:
        """Name the file; it is opened at the first line.

        Args:
            path: The file.
            dated: Put the time before each line.
        """
        super().__init__(path, maxBytes=BYTES, backupCount=EARLIER_FILES, delay=True)
        self.path = path
        formatter = logging.Formatter("%(asctime)sZ %(message)s" if dated else "%(message)s")
        formatter.converter = time.gmtime
        formatter.default_msec_format = "%s.%03d"
        self.setFormatter(formatter)

    def write(self, line: str) -> None:
        """Append a line. One that the disk does not take is lost: the terminal has it, and the service goes on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.emit(logging.LogRecord("", logging.INFO, "", 0, line, (), None))

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with contextlib.suppress(OSError):  # of what was to be written still
            super().close()

    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing, where logging would print a traceback for each line."""
