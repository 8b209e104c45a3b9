"""telemetry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LEASED = ("datasets", "previews", "jobs", "shards", "parts")


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_counters")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.add_column("jobs", sa.Column("counted", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "ix_jobs_uncounted", "jobs", ["id"], postgresql_where=sa.text("finished_at IS NOT NULL AND NOT counted")
    )
    for table in LEASED:
        op.add_column(
            table,
            sa.Column("origin", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        )


def downgrade() -> None:
    for table in LEASED:
        op.drop_column(table, "origin")
    op.drop_index("ix_jobs_uncounted", table_name="jobs")
    op.drop_column("jobs", "counted")
    op.drop_table("workers")
    op.drop_table("counters")
