"""quotas."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "open_jobs", "rows_per_job", "rows_per_day")


def upgrade() -> None:
    for limit in LIMITS:
        op.add_column("projects", sa.Column(limit, sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("rows", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "rows")
    for limit in LIMITS:
        op.drop_column("projects", limit)
