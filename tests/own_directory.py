"""Fixtures: settings whose roots and cache are in the test's own directory. A conftest.py names those it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from app.core.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


class SettingsFactory(Protocol):
    def __call__(self, **changes: Any) -> Settings: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def make_settings(tmp_path: Path, root: Path) -> SettingsFactory:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {"cache_dir": tmp_path / "cache", "allowed_roots": (str(root),)}
        return Settings(_env_file=None, **{**values, **changes})

    return make


@pytest.fixture
def settings(make_settings: SettingsFactory) -> Settings:
    return make_settings()
