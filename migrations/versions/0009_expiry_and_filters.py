"""Expiry of jobs and datasets, and indexes for what lists are filtered by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEWEST_FIRST = (sa.text("created_at DESC"), sa.text("id DESC"))
TABLES = ("datasets", "jobs")

# As in 0006: `updated_at` moves with what a client sees, which what telemetry keeps is not.
NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unseen CONSTANT text[] := '{%s}';
BEGIN
    IF to_jsonb(NEW) - unseen IS DISTINCT FROM to_jsonb(OLD) - unseen THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END $$
"""
UNSEEN = "lease_token,lease_expires_at,dispatch,crashes,queued_at,outage_since,plan,updated_at"


def upgrade() -> None:
    op.execute(NOTE_CHANGE % f"{UNSEEN},counted,origin")
    op.create_index("ix_datasets_project_id_created_at_id", "datasets", ["project_id", *NEWEST_FIRST])
    op.drop_index("ix_datasets_project_id", table_name="datasets")
    for table in TABLES:
        op.add_column(table, sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
        op.create_index(
            f"ix_{table}_expires_at", table, ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL")
        )
        op.create_index(
            f"ix_{table}_project_id_name", table, ["project_id", sa.text("name text_pattern_ops"), *NEWEST_FIRST]
        )
        op.create_index(f"ix_{table}_metadata", table, [sa.text("metadata jsonb_path_ops")], postgresql_using="gin")
    op.create_index("ix_datasets_project_id_uri", "datasets", ["project_id", "uri", *NEWEST_FIRST])
    op.create_index(
        "ix_jobs_project_id_dataset_uri",
        "jobs",
        ["project_id", sa.text("(request #>> '{dataset,uri}'::text[])"), *NEWEST_FIRST],
    )
    op.create_index("ix_jobs_dataset_id_created_at_id", "jobs", ["dataset_id", *NEWEST_FIRST])
    op.drop_index("ix_jobs_dataset_id", table_name="jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_dataset_id", "jobs", ["dataset_id"])
    op.drop_index("ix_jobs_dataset_id_created_at_id", table_name="jobs")
    op.drop_index("ix_jobs_project_id_dataset_uri", table_name="jobs")
    op.drop_index("ix_datasets_project_id_uri", table_name="datasets")
    for table in TABLES:
        op.drop_index(f"ix_{table}_metadata", table_name=table)
        op.drop_index(f"ix_{table}_project_id_name", table_name=table)
        op.drop_index(f"ix_{table}_expires_at", table_name=table)
        op.drop_column(table, "expires_at")
    op.create_index("ix_datasets_project_id", "datasets", ["project_id"])
    op.drop_index("ix_datasets_project_id_created_at_id", table_name="datasets")
    op.execute(NOTE_CHANGE % UNSEEN)
