"""A tiny saved model, and settings whose roots and cache are in the test's own directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from app.core.settings import Settings
from tests.integration.s3_server import CREDENTIALS, S3Server, s3_server
from tests.integration.tiny_model import save_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SettingsFactory(Protocol):
    def __call__(self, **changes: Any) -> Settings: ...


@pytest.fixture
def make_settings(tmp_path: Path) -> SettingsFactory:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {"cache_dir": tmp_path / "cache", "allowed_roots": (str(tmp_path),)}
        return Settings(_env_file=None, **{**values, **changes})

    return make


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as save_pretrained writes it; not to be changed."""
    return save_tiny_model(tmp_path_factory.mktemp("saved") / "tiny", ["the cat sat on the mat"] * 5)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in CREDENTIALS.items():
            patch.setenv(f"AWS_{name}", value)
        server.client.create_bucket(Bucket="models")
        yield server
