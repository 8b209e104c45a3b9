"""Bring a database to a revision of the schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"
TRIGGERS = Path(__file__).with_name("triggers.sql")
"""What the first migration runs after it has made the tables."""


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Apply the migrations up to `revision`; a database that is there already is left as it is."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Undo the migrations down to `revision`."""
    command.downgrade(_config(url), revision)


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The database's revision, and the newest that this code knows."""
    return MigrationContext.configure(connection).get_current_revision(), _head()


@cache
def _head() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
