"""Logging for every process, as text or as JSON lines; each line names its request and its row."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from pythonjsonlogger.json import JsonFormatter

from app.core.telemetry.origin import context

if TYPE_CHECKING:
    from app.core.settings import Settings

TIME = "%Y-%m-%dT%H:%M:%S"
TEXT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s%(about)s"
QUIET = ("alembic", "httpx", "httpcore", "botocore", "aiobotocore", "s3fs", "fsspec", "urllib3")
"""Libraries that tell of every step."""


class WithOrigin(logging.Filter):
    """Adds the current request id and row to each line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add to every record; none is dropped."""
        at_hand = context()
        record.request_id, record.work = at_hand.request_id, at_hand.work
        named = (("request", at_hand.request_id), ("work", at_hand.work))
        record.about = "".join(f" [{name} {value}]" for name, value in named if value)
        return True


class JsonLines(JsonFormatter):
    """One JSON object a line: time, level, logger, message, request_id, job_id and whatever else the line carries."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(reserved_attrs=RESERVED, json_ensure_ascii=False)

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        """Order the fields: what a reader looks for comes first."""
        log_data["time"] = f"{self.formatTime(record, TIME)}.{int(record.msecs):03d}Z"
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        if request_id := getattr(record, "request_id", None):
            log_data["request_id"] = request_id
        if work := getattr(record, "work", None):
            table, _, row_id = str(work).partition(" ")
            log_data[f"{table.removesuffix('s')}_id"] = row_id
        super().add_fields(log_data, record, message_dict)


RESERVED = sorted(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "request_id", "work", "about"}
    - {"exc_info", "stack_info"}
)


def configure(settings: Settings, level: str | None = None) -> None:
    """Write this process's log to stderr as the settings say; uvicorn's and RQ's lines as well.

    Args:
        settings: Format and level.
        level: Instead of the settings' level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(WithOrigin())
    handler.setFormatter(JsonLines() if settings.log_format == "json" else _text())
    logging.basicConfig(level=level or settings.log_level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _text() -> logging.Formatter:
    formatter = logging.Formatter(TEXT, TIME)
    formatter.converter = time.gmtime
    return formatter
