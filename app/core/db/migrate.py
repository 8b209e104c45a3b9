"""Bring a database to a revision of the schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from app.core.db.tables import Base

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"
TRIGGERS = Path(__file__).with_name("triggers.sql")
"""What the first migration runs after it has made the tables."""

TOLD = 3
"""Columns that a message names."""


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


class OtherSchema(Exception):
    """The database was made by another version, and no migration leads from its schema to this one's."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the database has the schema of another version ({what}): start the version that made it, or take an "
            "empty database (SPICE_DATABASE_URL; for `spice serve` another --data-dir)"
        )


def upgrade(url: str, revision: str = "head") -> None:
    """Apply the migrations up to `revision`; a database that is there already is left as it is.

    Raises:
        OtherSchema: The database's revision is none that this version knows, or its columns are others than the newest
            revision has, as until the first release that is written anew.
    """
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if present not in {None, *known}:
        raise OtherSchema(f"it is at revision {present}, which is none of {', '.join(sorted(known))}")
    command.upgrade(_config(url), revision)
    if revision == "head":
        with engine.connect() as connection:
            _check_columns(connection)


def _check_columns(connection: Connection) -> None:
    found = {
        f"{table}.{column['name']}"
        for (_, table), columns in inspect(connection).get_multi_columns().items()
        for column in columns
        if table in Base.metadata.tables
    }
    wanted = {f"{table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.columns}
    lacking, unknown = sorted(wanted - found), sorted(found - wanted)
    if lacking or unknown:
        said = [
            f"{verb} {', '.join(names[:TOLD])}{f' and {len(names) - TOLD} more' if len(names) > TOLD else ''}"
            for verb, names in (("it lacks", lacking), ("it has", unknown))
            if names
        ]
        raise OtherSchema(" and ".join(said))


def downgrade(url: str, revision: str = "base") -> None:
    """Undo the migrations down to `revision`."""
    command.downgrade(_config(url), revision)


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The database's revision, and the newest that this code knows."""
    return MigrationContext.configure(connection).get_current_revision(), _head()


@cache
def _head() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
