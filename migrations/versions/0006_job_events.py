"""job events, written by triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# `updated_at` moves when something moves that a client sees, and never stands still then: it is the row's version.
NOTE_CHANGE = """
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unseen CONSTANT text[] := '{lease_token,lease_expires_at,dispatch,crashes,queued_at,outage_since,plan,updated_at}';
BEGIN
    IF to_jsonb(NEW) - unseen IS DISTINCT FROM to_jsonb(OLD) - unseen THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END $$
"""

# Whoever changes a job writes its events, in the same statement. The job's row is locked meanwhile, so the ids of a
# job's events grow in the order of their commits, and a reader who asks for what came after an id misses nothing.
TELL_JOB = """
CREATE FUNCTION tell_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_at timestamptz;
    stage_at timestamptz;
BEGIN
    IF NEW.state IS DISTINCT FROM OLD.state
        OR (TG_OP = 'UPDATE' AND NEW.cancel_requested_at IS NOT NULL AND OLD.cancel_requested_at IS NULL)
    THEN
        INSERT INTO job_events (job_id, kind, data) VALUES (NEW.id, 'state', jsonb_build_object(
            'state', NEW.state, 'cancel_requested', NEW.cancel_requested_at IS NOT NULL, 'error', NEW.error));
    END IF;
    IF NEW.stage IS DISTINCT FROM OLD.stage AND NEW.stage IS NOT NULL THEN
        INSERT INTO job_events (job_id, kind, data) VALUES (NEW.id, 'stage', jsonb_build_object('stage', NEW.stage));
    ELSIF NEW.progress IS DISTINCT FROM OLD.progress AND NEW.progress IS NOT NULL THEN
        -- Thinned: a second apart at first, later a fiftieth of the stage's time so far, half a minute at most.
        SELECT at INTO last_at FROM job_events WHERE job_id = NEW.id ORDER BY id DESC LIMIT 1;
        SELECT at INTO stage_at FROM job_events WHERE job_id = NEW.id AND kind <> 'progress' ORDER BY id DESC LIMIT 1;
        IF last_at IS NULL OR now() - last_at >= least(
            interval '30 seconds', greatest(interval '0.9 seconds', (now() - stage_at) / 50))
        THEN
            INSERT INTO job_events (job_id, kind, data) VALUES (
                NEW.id, 'progress', jsonb_build_object('stage', NEW.stage) || NEW.progress);
        END IF;
    END IF;
    RETURN NULL;
END $$
"""

# A parked job's progress is that of its shards. The job's row is not waited for: its holder may wait for the shard.
COUNT_SHARDS = """
CREATE FUNCTION count_shards() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM jobs
        WHERE id = NEW.job_id AND state = 'running' AND lease_token IS NULL
            AND updated_at < clock_timestamp() - interval '0.5 seconds'
        FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE jobs SET progress = (
            SELECT jsonb_build_object(
                'done', done, 'total', total, 'unit', 'samples', 'rate', round(rate::numeric, 3),
                'eta_s', CASE WHEN rate > 0 THEN round(((total - done) / rate)::numeric, 1) END)
            FROM (
                SELECT
                    sum(CASE state WHEN 'succeeded' THEN samples
                        WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0) ELSE 0 END) AS done,
                    sum(samples) AS total,
                    sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate
                FROM shards WHERE job_id = NEW.job_id
            ) AS counted
        ) WHERE id = NEW.job_id;
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    for table in ("datasets", "jobs"):
        op.add_column(
            table, sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        )
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "state",
                "stage",
                "progress",
                name="event_kind",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "id", name=op.f("pk_job_events")),
    )
    op.create_index(
        "ix_job_events_turns",
        "job_events",
        ["job_id", "id"],
        unique=False,
        postgresql_where=sa.text("kind <> 'progress'"),
    )
    op.execute(
        "INSERT INTO job_events (job_id, at, kind, data) SELECT id, coalesce(finished_at, started_at, created_at), "
        "'state', jsonb_build_object('state', state, 'cancel_requested', cancel_requested_at IS NOT NULL, "
        "'error', error) FROM jobs"
    )
    op.execute(NOTE_CHANGE)
    op.execute(TELL_JOB)
    op.execute(COUNT_SHARDS)
    for table in ("datasets", "jobs"):
        op.execute(f"CREATE TRIGGER note_change BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note_change()")
    op.execute("CREATE TRIGGER tell_job AFTER INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION tell_job()")
    op.execute(
        "CREATE TRIGGER count_shards AFTER UPDATE ON shards FOR EACH ROW WHEN "
        "((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress)) EXECUTE FUNCTION count_shards()"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION count_shards() CASCADE")
    op.execute("DROP FUNCTION tell_job() CASCADE")
    op.execute("DROP FUNCTION note_change() CASCADE")
    op.drop_index("ix_job_events_turns", table_name="job_events", postgresql_where=sa.text("kind <> 'progress'"))
    op.drop_table("job_events")
    for table in ("jobs", "datasets"):
        op.drop_column(table, "updated_at")
