"""Work that waits out an outage, and jobs that may take so long only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("datasets", "jobs", "shards", "previews"):
        op.add_column(table, sa.Column("outage_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("timeout_s", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "timeout_s")
    for table in ("previews", "shards", "jobs", "datasets"):
        op.drop_column(table, "outage_since")
