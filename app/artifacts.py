"""Where the files of the service are: one layout, known here alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uuid
    from pathlib import Path

    from app.settings import Settings


def rows_path(settings: Settings, job_id: uuid.UUID, format: str) -> Path:  # noqa: A002 - the field's name
    """The picked rows of a job, in the dataset's own format."""
    return settings.artifacts_path / "jobs" / str(job_id) / f"rows.{format}"
