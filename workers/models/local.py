"""From a model's URI to the directory on this machine that is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.models.fetch import fetch_model
from workers.models.gguf import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.core.settings import Settings
    from app.core.uris.models import ModelUri


def local_model(uri: ModelUri, dtype: str, settings: Settings, should_stop: Callable[[], bool] | None = None) -> Path:
    """Have a model here: fetched where it is elsewhere, unpacked where it is GGUF; what is here is used again.

    Raises:
        ModelError: It can't be used.
        CacheFailed: The cache can't be written.
        Stopped: ``should_stop`` said so.
    """
    path = fetch_model(uri, settings, should_stop)
    return unpacked(path, dtype, settings, should_stop) if uri.is_gguf else path
