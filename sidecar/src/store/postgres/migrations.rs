//! The schema, as the migrations that create it.

/// Each migration upgrades the schema from the version that equals its index to the next one.
/// Never change a released one: existing databases were made with it.
pub(super) const MIGRATIONS: [&str; 6] = [FIRST, ORIGINS, ACCOUNTS, IMAGES, AUDIT, LAUNCHES];

/// Numbers of GitHub are unsigned, and are stored as the signed number of the same bits. Times are
/// in milliseconds, as everywhere.
const FIRST: &str = "
CREATE TABLE deliveries (
    id text NOT NULL,
    received_ms bigint NOT NULL,
    hook text NOT NULL,
    hook_id bigint NOT NULL,
    hook_target_type text NOT NULL,
    hook_target_id bigint NOT NULL,
    state smallint NOT NULL,
    job_id bigint NOT NULL,
    run_attempt bigint NOT NULL,
    host text COLLATE \"C\" NOT NULL,
    -- The transaction that stored it: what a later snapshot sees and an earlier one did not is new.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- Deliveries of one time are neighbours, because the ids of jobs rise.
    PRIMARY KEY (job_id, run_attempt, state, id)
);
CREATE INDEX deliveries_by_age ON deliveries (received_ms);
CREATE INDEX deliveries_by_xid ON deliveries (xid);

CREATE TABLE jobs (
    id bigint NOT NULL,
    run_attempt bigint NOT NULL,
    host text COLLATE \"C\" NOT NULL,
    state smallint NOT NULL,
    run_id bigint NOT NULL,
    repository text COLLATE \"C\" NOT NULL,
    organization text NOT NULL,
    enterprise text NOT NULL,
    name text NOT NULL,
    workflow_name text NOT NULL,
    head_branch text NOT NULL,
    html_url text NOT NULL,
    -- A list in JSON.
    labels text NOT NULL,
    conclusion text NOT NULL,
    runner_name text NOT NULL,
    delivery text NOT NULL,
    -- By GitHub's clock; NULL if GitHub did not send it.
    created_ms bigint,
    queued_ms bigint NOT NULL,
    started_ms bigint,
    completed_ms bigint,
    changed_ms bigint NOT NULL,
    waiting text,
    waiting_message text,
    PRIMARY KEY (id, run_attempt, host)
);
CREATE INDEX jobs_open ON jobs (queued_ms) WHERE state < 2;
CREATE INDEX jobs_by_change ON jobs (changed_ms);

CREATE TABLE runners (
    name text COLLATE \"C\" PRIMARY KEY,
    pool text NOT NULL,
    -- Empty if an earlier version launched it.
    provider text NOT NULL,
    node text,
    host text COLLATE \"C\" NOT NULL,
    target text NOT NULL,
    phase text NOT NULL,
    created_ms bigint NOT NULL,
    -- When the container started.
    started_ms bigint,
    registration_id bigint,
    job_id bigint,
    job_run_attempt bigint,
    why text,
    failed boolean NOT NULL,
    gone_ms bigint
);
CREATE INDEX runners_by_creation ON runners (created_ms);
CREATE INDEX runners_failed ON runners (created_ms) WHERE failed;
CREATE INDEX runners_present ON runners (created_ms) WHERE gone_ms IS NULL;
CREATE INDEX runners_gone ON runners (gone_ms) WHERE gone_ms IS NOT NULL;

-- The executor writes logs; the driver writes everything else about runners.
CREATE TABLE runner_logs (
    runner text COLLATE \"C\" PRIMARY KEY REFERENCES runners ON DELETE CASCADE,
    log text NOT NULL
);

-- Pools that are being drained; an empty name stands for all pools.
CREATE TABLE draining (
    pool text COLLATE \"C\" PRIMARY KEY
);

CREATE TABLE hooks (
    -- Empty if an earlier version saw it.
    host text COLLATE \"C\" NOT NULL,
    -- Path in the REST API, without the leading slash.
    hook text COLLATE \"C\" NOT NULL,
    -- The GitHub App that the webhook belongs to; 0 for other webhooks.
    app_id bigint NOT NULL,
    seen_ms bigint NOT NULL,
    -- Every delivery before this time has arrived or was given up.
    settled_ms bigint NOT NULL,
    PRIMARY KEY (host, hook, app_id)
);

-- Which sidecar plans. Writes of an earlier term are not carried out.
CREATE TABLE lease (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    -- The id of a row of sidecars.
    holder text,
    term bigint NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO lease (term, since, until) VALUES (0, now(), '-infinity');

CREATE TABLE sidecars (
    -- New at each start.
    id text PRIMARY KEY,
    -- Host name, for people.
    name text NOT NULL,
    version text NOT NULL,
    started timestamptz NOT NULL,
    seen timestamptz NOT NULL,
    figures jsonb NOT NULL
);

-- Commands given to a sidecar that does not plan, and their replies. Nothing of value is lost with
-- them.
CREATE UNLOGGED TABLE requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made timestamptz NOT NULL DEFAULT clock_timestamp(),
    request jsonb NOT NULL,
    reply jsonb
);
";

/// Whose code a job runs.
const ORIGINS: &str = "
-- Of the repository, as GitHub names it; empty if it is not known.
ALTER TABLE jobs ADD COLUMN visibility text NOT NULL DEFAULT '';
-- Whether the run is of a pull request from a fork; NULL if it is not known.
ALTER TABLE jobs ADD COLUMN from_fork boolean;
";

/// How runners ended, what they used, and which jobs are run again because of that.
const ACCOUNTS: &str = "
-- Stable name of the reason; NULL if it is not known.
ALTER TABLE runners ADD COLUMN end_reason text;
-- The most at a time; NULL if it was not measured.
ALTER TABLE runners ADD COLUMN memory_peak_bytes bigint;
-- In thousandths of a processor.
ALTER TABLE runners ADD COLUMN cpu_peak_millis bigint;
-- When GitHub was asked to run it again, or that was given up.
ALTER TABLE jobs ADD COLUMN rerun_ms bigint;
";

/// Which images an installation may remove.
const IMAGES: &str = "
CREATE TABLE images (
    -- The ID of the Engine that has it.
    engine text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    -- By which it was pulled.
    name text NOT NULL,
    pulled_ms bigint NOT NULL,
    PRIMARY KEY (engine, id)
);
";

/// Who changed what.
const AUDIT: &str = "
CREATE TABLE audit (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at_ms bigint NOT NULL,
    who text NOT NULL,
    -- IP address; empty if it is not known.
    address text NOT NULL,
    action text NOT NULL,
    -- Empty for all.
    target text NOT NULL,
    outcome text NOT NULL
);
CREATE INDEX audit_by_age ON audit (at_ms);
";

/// More of each launch, for the time line of its job.
const LAUNCHES: &str = "
-- When GitHub first listed it as online without a job; NULL if it is not known.
ALTER TABLE runners ADD COLUMN online_ms bigint;
-- Name of the credential; NULL if an earlier version launched it.
ALTER TABLE runners ADD COLUMN credential text;
";
