"""stored curves."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("selections", "repeats", new_column_name="curve")


def downgrade() -> None:
    op.alter_column("selections", "curve", new_column_name="repeats")
