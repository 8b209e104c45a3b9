"""Remove what a worker that was killed in mid-write has left in the cache."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.settings import Settings


def remove_leftovers(settings: Settings) -> int:
    """Delete what is unfinished in the cache and was not written to for ``fetch_timeout_s``.

    Copies of datasets and models, corpora, files of picked rows and of trainings. Finished ones are never touched:
    unfinished ones have names that begin with a dot. Safe to call at any time, by any number of workers.

    Returns:
        How many were deleted.
    """
    oldest = time.time() - settings.fetch_timeout_s
    removed = 0
    for directory in (settings.cache_path / name for name in ("datasets", "corpora", "models", "rows", "training")):
        for path in directory.glob(".*"):
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                inside = path.iterdir() if path.is_dir() else ()
                if max(one.stat().st_mtime for one in (path, *inside)) < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed += 1
    return removed
