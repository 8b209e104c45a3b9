-- What Postgres itself keeps true of jobs and datasets, whichever process changes them.
-- The first migration runs this file. Until the first release a change is made here.

-- `updated_at` is the version of a row as clients see it: it moves when something moves that they see, always forward.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unseen CONSTANT text[] :=
        '{lease_token,lease_expires_at,dispatch,crashes,queued_at,outage_since,plan,updated_at,counted,origin}';
BEGIN
    IF to_jsonb(NEW) - unseen IS DISTINCT FROM to_jsonb(OLD) - unseen THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER note_change BEFORE UPDATE ON datasets FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE TRIGGER note_change BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note_change();


-- A statement that changes a job writes the job's events. The statement holds the lock of the job's row, so the ids of
-- a job's events grow in the order of their commits, and a reader who asks for what came after an id misses nothing.
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
        -- Progress is thinned out: a second apart at first, later a fiftieth of the stage's time so far, half a minute
        -- at most.
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
END $$;

CREATE TRIGGER tell_job AFTER INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION tell_job();


-- A message is due if and only if the job has ended: both are written in one transaction.
CREATE FUNCTION owe_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.webhook := '{"state": "pending", "attempts": 0, "status": null, "error": null}';
    NEW.webhook_due_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER owe_webhook BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (
        NEW.state IN ('succeeded', 'failed', 'cancelled')
        AND OLD.state NOT IN ('succeeded', 'failed', 'cancelled')
        AND NEW.request #>> '{webhook,url}' IS NOT NULL
    )
    EXECUTE FUNCTION owe_webhook();


-- The progress of a parked job is that of its shards. The trigger does not wait for the job's row, whose holder may be
-- waiting for the shard; the next report of a shard catches up.
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
                'eta_s', CASE WHEN rate > 0 THEN round(((total - done) / rate)::numeric, 1) END,
                'tokens_per_s', round(token_rate::numeric, 1))
            FROM (
                SELECT
                    sum(CASE state WHEN 'succeeded' THEN samples
                        WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0) ELSE 0 END) AS done,
                    sum(samples) AS total,
                    sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate,
                    sum((progress->>'tokens_per_s')::float8) FILTER (WHERE state = 'running') AS token_rate
                FROM shards WHERE job_id = NEW.job_id
            ) AS counted
        ) WHERE id = NEW.job_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_shards AFTER UPDATE ON shards FOR EACH ROW
    WHEN ((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress))
    EXECUTE FUNCTION count_shards();


-- As for shards, in picks.
CREATE FUNCTION count_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM jobs
        WHERE id = NEW.job_id AND state = 'running' AND lease_token IS NULL
            AND updated_at < clock_timestamp() - interval '0.5 seconds'
        FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE jobs SET progress = (
            SELECT jsonb_build_object(
                'done', done, 'total', total, 'unit', 'picks', 'rate', round(rate::numeric, 3),
                'eta_s', CASE WHEN rate > 0 THEN round(((total - done) / rate)::numeric, 1) END)
            FROM (
                SELECT
                    sum(CASE state WHEN 'succeeded' THEN budget
                        WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0) ELSE 0 END) AS done,
                    sum(budget) AS total,
                    sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate
                FROM parts WHERE job_id = NEW.job_id
            ) AS counted
        ) WHERE id = NEW.job_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_parts AFTER UPDATE ON parts FOR EACH ROW
    WHEN ((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress))
    EXECUTE FUNCTION count_parts();
