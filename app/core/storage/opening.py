"""Open the artifact store that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.storage.local import LocalArtifacts

if TYPE_CHECKING:
    from app.core.settings import Settings
    from app.core.storage.store import ArtifactStore


def open_artifacts(settings: Settings) -> ArtifactStore:
    """The store that `SPICE_ARTIFACTS_URL` names. Nothing is read, written or connected to yet."""
    directory = settings.artifacts_path
    if directory is not None:
        return LocalArtifacts(directory)
    from app.core.storage.s3 import S3Artifacts  # noqa: PLC0415 - takes a second, and only a bucket needs it

    return S3Artifacts(settings.artifacts_place, settings.s3_endpoint_url)
