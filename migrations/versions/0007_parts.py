"""Parts of a selection that is spread over workers, and tokens a second in a job's progress."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A parked job's progress is that of its shards or parts, as for shards in 0006.
COUNT = """
CREATE OR REPLACE FUNCTION count_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM jobs
        WHERE id = NEW.job_id AND state = 'running' AND lease_token IS NULL
            AND updated_at < clock_timestamp() - interval '0.5 seconds'
        FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE jobs SET progress = (
            SELECT jsonb_build_object(
                'done', done, 'total', total, 'unit', '{unit}', 'rate', round(rate::numeric, 3),
                'eta_s', CASE WHEN rate > 0 THEN round(((total - done) / rate)::numeric, 1) END{extra})
            FROM (
                SELECT
                    sum(CASE state WHEN 'succeeded' THEN {size}
                        WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0) ELSE 0 END) AS done,
                    sum({size}) AS total,
                    sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate,
                    sum((progress->>'tokens_per_s')::float8) FILTER (WHERE state = 'running') AS token_rate
                FROM {table} WHERE job_id = NEW.job_id
            ) AS counted
        ) WHERE id = NEW.job_id;
    END IF;
    RETURN NULL;
END $$
"""
EXTRA = ", 'tokens_per_s', round(token_rate::numeric, 1)"


def upgrade() -> None:
    op.create_table(
        "parts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("budget", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("progress", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("picks", sa.ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("gains", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                *("queued", "running", "succeeded", "failed", "cancelled"),
                name="state",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("dispatch", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("outage_since", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_parts_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_parts_job_id_number")),
    )
    op.create_index(
        "ix_parts_open",
        "parts",
        ["state", "queued_at"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.execute(COUNT.format(table="shards", size="samples", unit="samples", extra=EXTRA))
    op.execute(COUNT.format(table="parts", size="budget", unit="picks", extra=""))
    op.execute(
        "CREATE TRIGGER count_parts AFTER UPDATE ON parts FOR EACH ROW WHEN "
        "((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress)) EXECUTE FUNCTION count_parts()"
    )


def downgrade() -> None:
    op.execute(COUNT.format(table="shards", size="samples", unit="samples", extra=""))
    op.execute("DROP FUNCTION count_parts() CASCADE")
    op.drop_index("ix_parts_open", table_name="parts", postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.drop_table("parts")
