"""Keep the cache of fetched datasets, models and tokenised samples within its limits; what was used last goes last."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.data.holds import deleting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from app.core.settings import Settings

logger = logging.getLogger(__name__)

GRACE_S = 600.0
"""What is as young as this may be a copy that its maker has not come to hold yet."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A dataset's copy, the directory of its samples, or that of a model.

    Attributes:
        path: Where it is.
        bytes: Its size.
        used: When it was last used, in seconds since 1970.
    """

    path: Path
    bytes: int
    used: float


def shrink_cache(
    settings: Settings, fingerprints: Collection[str], digests: Collection[str], now: float | None = None
) -> list[Path]:
    """Delete what is too old or too much.

    Safe to call at any time by any number of workers: what one of them holds stays.

    Args:
        settings: ``cache_path``, ``cache_max_bytes``, ``cache_max_age_s``.
        fingerprints: Datasets that jobs are going to read again: their source may have changed since.
        digests: Samples that jobs are going to read again.
        now: Seconds since 1970.

    Returns:
        What was deleted.
    """
    limit, max_age = settings.cache_max_bytes, settings.cache_max_age_s
    if limit is None and max_age is None:
        return []
    now = time.time() if now is None else now
    entries = sorted(_entries(settings.cache_path), key=lambda entry: entry.used)
    total = sum(entry.bytes for entry in entries)
    removed = []
    for entry in entries:
        age = now - entry.used
        unwanted = (max_age is not None and age > max_age) or (limit is not None and total > limit)
        if not unwanted or age < GRACE_S or _is_live(entry.path, fingerprints, digests):
            continue
        with deleting(entry.path) as free:
            if free:
                _delete(entry.path)
                removed.append(entry.path)
                total -= entry.bytes
    if limit is not None and total > limit:
        warning = "%s takes %d bytes, SPICE_CACHE_MAX_BYTES is %d, and all is in use"
        logger.warning(warning, settings.cache_path, total, limit)
    return removed


def _entries(cache: Path) -> Iterator[Cached]:
    """The finished ones: unfinished ones have names that begin with a dot."""
    for path in (path for kind in ("datasets", "corpora", "models") for path in cache.glob(f"{kind}/[!.]*")):
        with contextlib.suppress(OSError):  # another worker was quicker
            files = list(path.iterdir()) if path.is_dir() else []
            statuses = [one.stat() for one in (path, *files)]
            yield Cached(path, sum(one.st_size for one in statuses), max(one.st_mtime for one in statuses))


def _is_live(path: Path, fingerprints: Collection[str], digests: Collection[str]) -> bool:
    if path.parent.name == "datasets":
        return f"sha256:{path.name.partition('.')[0]}" in fingerprints
    if path.parent.name == "models":  # of which a worker holds the one that it works with
        return False
    try:
        return json.loads((path / "about.json").read_text())["digest"] in digests
    except (OSError, ValueError, KeyError):  # damaged: it would be made anew anyway
        return False


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
