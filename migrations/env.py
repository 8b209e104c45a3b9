"""Alembic environment: the URL comes from the caller, else from the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from app.core.db.tables import Base
from app.core.settings import get_settings

# Any fixed number: two migrations that start at once run one after the other.
MIGRATION_LOCK = 7_301_955_026


def run() -> None:
    """Migrate in one transaction, under an advisory lock."""
    url = context.config.attributes.get("url") or str(get_settings().database_url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        context.run_migrations()
    engine.dispose()


run()
