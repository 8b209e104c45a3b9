"""The migrations make the schema of `app.core.db.tables`, and can be undone."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from app.core.db.migrate import downgrade, revisions, upgrade
from app.core.db.tables import Base

# Not the order of columns: ALTER TABLE puts a new one last, and nothing here reads a row by position.
CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
    """,
    "indexes": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
}


def catalogue(engine: Engine) -> dict[str, set[tuple[object, ...]]]:
    """All that Postgres knows of the schema, Alembic's own table aside."""
    with engine.connect() as connection:
        return {
            name: {tuple(row) for row in connection.execute(text(query)) if not str(row[0]).startswith("alembic")}
            for name, query in CATALOGUE.items()
        }


@pytest.fixture
def engine(empty_database_url: str) -> Engine:
    return create_engine(empty_database_url)


def test_migrations_and_tables_are_one_schema(engine: Engine, empty_database_url: str) -> None:
    upgrade(empty_database_url)
    migrated = catalogue(engine)
    downgrade(empty_database_url)
    assert catalogue(engine) == {name: set() for name in CATALOGUE}
    Base.metadata.create_all(engine)
    created = catalogue(engine)
    engine.dispose()
    for name in CATALOGUE:
        assert migrated[name] == created[name], name
    assert migrated["constraints"]


def test_every_step_goes_up_and_down_and_up_again(engine: Engine, empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with engine.connect() as connection:
        present, newest = revisions(connection)
    assert present == newest
    assert newest is not None
    for _ in range(int(newest)):
        downgrade(empty_database_url, "-1")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    upgrade(empty_database_url)
    upgrade(empty_database_url)
    assert "jobs" in inspect(engine).get_table_names()
    engine.dispose()
