"""Write the first migration anew from the tables: until the first release, this is how the schema changes.

`make schema` runs it. The test of the migrations says whether tables and migration agree.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from app.core.db.tables import Base
from app.local.servers import EmbeddedServers

MIGRATION = Path(__file__).resolve().parents[1] / "migrations" / "versions" / "0001_schema.py"
HEAD = '''"""The schema: every table, and the triggers of `app/core/db/triggers.sql`.

Nothing was released yet, so a change of the schema is made here and not in a second migration: change
`app/core/db/tables.py` or `triggers.sql`, then `make schema` writes this file anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.core.db.migrate import TRIGGERS
from app.core.db.tables import DEFAULT_PROJECT

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
'''
ROWS = """
    projects = sa.table("projects", sa.column("id", sa.UUID()), sa.column("name", sa.Text()))
    op.bulk_insert(projects, [{"id": DEFAULT_PROJECT, "name": "default"}])
    op.execute(TRIGGERS.read_text(encoding="utf-8"))


def downgrade() -> None:
"""
FUNCTIONS = """    op.execute(
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid::regprocedure FROM pg_proc "
        "WHERE pronamespace = current_schema()::regnamespace AND prorettype = 'trigger'::regtype "
        "LOOP EXECUTE 'DROP FUNCTION ' || f || ' CASCADE'; END LOOP; END $$"
    )
"""


def main() -> int:
    """Compare an empty database with the tables, and write what makes the one into the other."""
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory), durable=False) as servers,
        create_engine(servers.database_url).connect() as connection,
    ):
        migration = produce_migrations(MigrationContext.configure(connection), Base.metadata)
    assert migration.upgrade_ops is not None  # noqa: S101 - they are None for a migration that was not produced
    assert migration.downgrade_ops is not None  # noqa: S101
    up, down = render_python_code(migration.upgrade_ops), render_python_code(migration.downgrade_ops)
    MIGRATION.write_text(HEAD + _indented(up) + ROWS + FUNCTIONS + _indented(down), encoding="utf-8")
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, str(MIGRATION)], check=True)  # noqa: S603
    print(f"Wrote {MIGRATION.name}: {len(Base.metadata.tables)} tables")
    return 0


def _indented(code: str) -> str:
    """Alembic's lines but for its own comments, in a function's body."""
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("# ###")]
    body = "".join(f"    {line.removeprefix('    ')}\n" for line in lines)
    return body.replace("astext_type=Text()", "astext_type=sa.Text()")  # Alembic forgets the prefix here


if __name__ == "__main__":
    sys.exit(main())
