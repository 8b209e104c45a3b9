"""Messages that jobs owe when they end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# In the transaction of the final state: a message is due if and only if the job has ended.
OWE_WEBHOOK = """
CREATE FUNCTION owe_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.webhook := '{"state": "pending", "attempts": 0, "status": null, "error": null}';
    NEW.webhook_due_at := now();
    RETURN NEW;
END $$
"""
FINAL = "('succeeded', 'failed', 'cancelled')"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("webhook", postgresql.JSONB(none_as_null=True, astext_type=sa.Text())))
    op.add_column("jobs", sa.Column("webhook_due_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_jobs_webhook_due_at", "jobs", ["webhook_due_at"], postgresql_where=sa.text("webhook_due_at IS NOT NULL")
    )
    op.execute(OWE_WEBHOOK)
    op.execute(
        f"CREATE TRIGGER owe_webhook BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.state IN {FINAL} AND OLD.state NOT IN "
        f"{FINAL} AND NEW.request #>> '{{webhook,url}}' IS NOT NULL) EXECUTE FUNCTION owe_webhook()"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION owe_webhook() CASCADE")
    op.drop_index("ix_jobs_webhook_due_at", table_name="jobs")
    op.drop_column("jobs", "webhook_due_at")
    op.drop_column("jobs", "webhook")
