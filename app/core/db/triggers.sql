-- What Postgres itself keeps true of jobs, proofs and datasets, whichever process changes them.
-- The first migration runs this file. Until the first release a change is made here.

-- `updated_at` is the version of a row as clients see it: it moves when something moves that they see, always forward.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unseen CONSTANT text[] :=
        '{lease_token,lease_expires_at,dispatch,crashes,queued_at,outage_since,outage_of,plan,updated_at,counted,origin,'
        'shortest_rows}';
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


-- The progress of a parked job is the sum over its shards, or over its parts. The trigger's argument is the column with
-- the size of a unit; what it counts, the job's progress says since the job was parked. The trigger does not wait for
-- the job's row, whose holder may be waiting for the unit; the next report of a unit catches up.
CREATE FUNCTION add_up_progress() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    size CONSTANT text := TG_ARGV[0];
    unit text;
    counted record;
    added_up jsonb;
BEGIN
    SELECT progress->>'unit' INTO unit FROM jobs
        WHERE id = NEW.job_id AND state = 'running' AND lease_token IS NULL
            AND updated_at < clock_timestamp() - interval '0.5 seconds'
        FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format($query$
        SELECT
            sum(CASE state
                WHEN 'succeeded' THEN %1$I
                WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0)
                ELSE 0 END) AS done,
            sum(%1$I) AS total,
            sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate,
            sum((progress->>'tokens_per_s')::float8) FILTER (WHERE state = 'running') AS tokens_per_s
        FROM %2$I WHERE job_id = $1
    $query$, size, TG_TABLE_NAME) INTO counted USING NEW.job_id;
    added_up := jsonb_build_object(
        'done', counted.done, 'total', counted.total, 'unit', unit, 'rate', round(counted.rate::numeric, 3),
        'eta_s', CASE WHEN counted.rate > 0 THEN
            round(((counted.total - counted.done) / counted.rate)::numeric, 1) END);
    IF unit = 'samples' THEN
        added_up := added_up || jsonb_build_object('tokens_per_s', round(counted.tokens_per_s::numeric, 1));
    END IF;
    UPDATE jobs SET progress = added_up WHERE id = NEW.job_id;
    -- Jobs that wait for the same work have the same progress.
    IF TG_TABLE_NAME = 'shards' THEN
        UPDATE jobs SET progress = added_up WHERE id IN (
            SELECT behind.id FROM jobs AS behind JOIN jobs AS computing
                ON behind.plan->>'work' = computing.plan->>'work'
            WHERE computing.id = NEW.job_id AND behind.state = 'running' AND behind.lease_token IS NULL
                AND behind.plan ? 'behind'
            FOR NO KEY UPDATE OF behind SKIP LOCKED);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER add_up_progress AFTER UPDATE ON shards FOR EACH ROW
    WHEN ((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress))
    EXECUTE FUNCTION add_up_progress('samples');
CREATE TRIGGER add_up_progress AFTER UPDATE ON parts FOR EACH ROW
    WHEN ((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress))
    EXECUTE FUNCTION add_up_progress('budget');


CREATE TRIGGER note_change BEFORE UPDATE ON proofs FOR EACH ROW EXECUTE FUNCTION note_change();

CREATE TRIGGER owe_webhook BEFORE UPDATE ON proofs FOR EACH ROW
    WHEN (
        NEW.state IN ('succeeded', 'failed', 'cancelled')
        AND OLD.state NOT IN ('succeeded', 'failed', 'cancelled')
        AND NEW.request #>> '{webhook,url}' IS NOT NULL
    )
    EXECUTE FUNCTION owe_webhook();


-- The events of proofs, as those of jobs.
CREATE FUNCTION tell_proof() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_at timestamptz;
    stage_at timestamptz;
BEGIN
    IF NEW.state IS DISTINCT FROM OLD.state
        OR (TG_OP = 'UPDATE' AND NEW.cancel_requested_at IS NOT NULL AND OLD.cancel_requested_at IS NULL)
    THEN
        INSERT INTO proof_events (proof_id, kind, data) VALUES (NEW.id, 'state', jsonb_build_object(
            'state', NEW.state, 'cancel_requested', NEW.cancel_requested_at IS NOT NULL, 'error', NEW.error));
    END IF;
    IF NEW.stage IS DISTINCT FROM OLD.stage AND NEW.stage IS NOT NULL THEN
        INSERT INTO proof_events (proof_id, kind, data)
            VALUES (NEW.id, 'stage', jsonb_build_object('stage', NEW.stage));
    ELSIF NEW.progress IS DISTINCT FROM OLD.progress AND NEW.progress IS NOT NULL THEN
        SELECT at INTO last_at FROM proof_events WHERE proof_id = NEW.id ORDER BY id DESC LIMIT 1;
        SELECT at INTO stage_at FROM proof_events WHERE proof_id = NEW.id AND kind <> 'progress'
            ORDER BY id DESC LIMIT 1;
        IF last_at IS NULL OR now() - last_at >= least(
            interval '30 seconds', greatest(interval '0.9 seconds', (now() - stage_at) / 50))
        THEN
            INSERT INTO proof_events (proof_id, kind, data) VALUES (
                NEW.id, 'progress', jsonb_build_object('stage', NEW.stage) || NEW.progress);
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tell_proof AFTER INSERT OR UPDATE ON proofs FOR EACH ROW EXECUTE FUNCTION tell_proof();


-- The progress of a parked proof is that of its runs.
CREATE FUNCTION count_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM proofs
        WHERE id = NEW.proof_id AND state = 'running' AND lease_token IS NULL
            AND updated_at < clock_timestamp() - interval '0.5 seconds'
        FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE proofs SET progress = (
            SELECT jsonb_build_object(
                'done', done, 'total', total, 'unit', 'steps', 'rate', round(rate::numeric, 3),
                'eta_s', CASE WHEN rate > 0 THEN round(((total - done) / rate)::numeric, 1) END)
            FROM (
                SELECT
                    sum(CASE state WHEN 'queued' THEN 0
                        WHEN 'running' THEN coalesce((progress->>'done')::bigint, 0) ELSE steps END) AS done,
                    sum(steps) AS total,
                    sum((progress->>'rate')::float8) FILTER (WHERE state = 'running') AS rate
                FROM proof_runs WHERE proof_id = NEW.proof_id
            ) AS counted
        ) WHERE id = NEW.proof_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_runs AFTER UPDATE ON proof_runs FOR EACH ROW
    WHEN ((NEW.state, NEW.progress) IS DISTINCT FROM (OLD.state, OLD.progress))
    EXECUTE FUNCTION count_runs();


-- What OpenLineage is told of a job: its first start, and its end. Connections of a service that tells nobody do not set
-- `spice.lineage`, and cost nothing.
CREATE FUNCTION owe_lineage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lineage_events (job_id, kind) VALUES (NEW.id, CASE NEW.state
        WHEN 'running' THEN 'START' WHEN 'succeeded' THEN 'COMPLETE' WHEN 'failed' THEN 'FAIL' ELSE 'ABORT' END);
    RETURN NULL;
END $$;

CREATE TRIGGER owe_lineage AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (
        current_setting('spice.lineage', true) = 'on'
        AND ((NEW.started_at IS NOT NULL AND OLD.started_at IS NULL)
            OR (NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL))
    )
    EXECUTE FUNCTION owe_lineage();
