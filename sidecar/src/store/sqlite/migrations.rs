//! The schema, as the migrations that create it.

/// Each migration upgrades the database from the version that equals its index to the next one.
/// Never change a released one: existing databases were made with it.
pub(super) const MIGRATIONS: [&str; 15] = [
    FIRST,
    WAITING,
    DELIVERIES_BY_JOB,
    HOOKS,
    TIMELINE,
    ROWIDS,
    RUNNER_LOGS,
    HOSTS,
    RUNNERS_BY_END,
    PROVIDERS,
    ORIGINS,
    ACCOUNTS,
    IMAGES,
    AUDIT,
    LAUNCHES,
];

/// The first version that has hosts.
pub(super) const HOSTS_VERSION: usize = 8;

const FIRST: &str = "
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    hook TEXT NOT NULL,
    hook_id INTEGER NOT NULL,
    hook_target_type TEXT NOT NULL,
    hook_target_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_age ON deliveries (received_ms);

CREATE TABLE jobs (
    id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    state INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    organization TEXT NOT NULL,
    enterprise TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    head_branch TEXT NOT NULL,
    html_url TEXT NOT NULL,
    labels TEXT NOT NULL,
    conclusion TEXT NOT NULL,
    runner_name TEXT NOT NULL,
    delivery TEXT NOT NULL,
    queued_ms INTEGER NOT NULL,
    started_ms INTEGER,
    completed_ms INTEGER,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (id, run_attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_open ON jobs (queued_ms) WHERE state < 2;
CREATE INDEX jobs_by_change ON jobs (changed_ms);

CREATE TABLE runners (
    name TEXT PRIMARY KEY,
    pool TEXT NOT NULL,
    target TEXT NOT NULL,
    phase TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    registration_id INTEGER,
    job_id INTEGER,
    job_run_attempt INTEGER,
    why TEXT,
    log TEXT,
    gone_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX runners_by_creation ON runners (created_ms);

-- Pools that are being drained; an empty name stands for all pools.
CREATE TABLE draining (
    pool TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
";

const WAITING: &str = "
ALTER TABLE jobs ADD COLUMN waiting TEXT;
ALTER TABLE jobs ADD COLUMN waiting_message TEXT;
";

/// A redelivery is about the same job, and job IDs rise, so deliveries of the same time are
/// neighbours in the table. Sorted by their random IDs each would change a different page.
const DELIVERIES_BY_JOB: &str = "
DROP INDEX deliveries_by_age;
ALTER TABLE deliveries RENAME TO deliveries_by_id;
CREATE TABLE deliveries (
    id TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    hook TEXT NOT NULL,
    hook_id INTEGER NOT NULL,
    hook_target_type TEXT NOT NULL,
    hook_target_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    PRIMARY KEY (job_id, run_attempt, state, id)
) STRICT, WITHOUT ROWID;
INSERT INTO deliveries SELECT * FROM deliveries_by_id;
DROP TABLE deliveries_by_id;
CREATE INDEX deliveries_by_age ON deliveries (received_ms);
";

const HOOKS: &str = "
CREATE TABLE hooks (
    -- Path in the REST API, without the leading slash.
    hook TEXT NOT NULL,
    -- The GitHub App that the webhook belongs to; 0 for other webhooks.
    app_id INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    -- Every delivery before this time has arrived or was given up.
    settled_ms INTEGER NOT NULL,
    PRIMARY KEY (hook, app_id)
) STRICT, WITHOUT ROWID;
";

const TIMELINE: &str = "
-- By GitHub's clock; NULL if GitHub did not send it.
ALTER TABLE jobs ADD COLUMN created_ms INTEGER;
-- When the container started.
ALTER TABLE runners ADD COLUMN started_ms INTEGER;
ALTER TABLE runners ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runners_failed ON runners (created_ms) WHERE failed;
";

/// Without rowids the inner pages of a table hold whole rows, and each of its indexes holds
/// the whole primary key: a commit of 25 deliveries wrote 27 pages, with rowids it writes 22.
const ROWIDS: &str = "
DROP INDEX deliveries_by_age;
ALTER TABLE deliveries RENAME TO deliveries_without_rowid;
CREATE TABLE deliveries (
    id TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    hook TEXT NOT NULL,
    hook_id INTEGER NOT NULL,
    hook_target_type TEXT NOT NULL,
    hook_target_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    PRIMARY KEY (job_id, run_attempt, state, id)
) STRICT;
INSERT INTO deliveries SELECT * FROM deliveries_without_rowid ORDER BY received_ms;
DROP TABLE deliveries_without_rowid;
CREATE INDEX deliveries_by_age ON deliveries (received_ms);

DROP INDEX jobs_open;
DROP INDEX jobs_by_change;
ALTER TABLE jobs RENAME TO jobs_without_rowid;
CREATE TABLE jobs (
    id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    state INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    organization TEXT NOT NULL,
    enterprise TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    head_branch TEXT NOT NULL,
    html_url TEXT NOT NULL,
    labels TEXT NOT NULL,
    conclusion TEXT NOT NULL,
    runner_name TEXT NOT NULL,
    delivery TEXT NOT NULL,
    queued_ms INTEGER NOT NULL,
    started_ms INTEGER,
    completed_ms INTEGER,
    changed_ms INTEGER NOT NULL,
    waiting TEXT,
    waiting_message TEXT,
    -- By GitHub's clock; NULL if GitHub did not send it.
    created_ms INTEGER,
    PRIMARY KEY (id, run_attempt)
) STRICT;
INSERT INTO jobs SELECT * FROM jobs_without_rowid ORDER BY queued_ms;
DROP TABLE jobs_without_rowid;
CREATE INDEX jobs_open ON jobs (queued_ms) WHERE state < 2;
CREATE INDEX jobs_by_change ON jobs (changed_ms);
";

/// The executor writes logs; the driver writes everything else about runners.
const RUNNER_LOGS: &str = "
CREATE TABLE runner_logs (
    runner TEXT PRIMARY KEY,
    log TEXT NOT NULL
) STRICT;
INSERT INTO runner_logs SELECT name, log FROM runners WHERE log IS NOT NULL;
ALTER TABLE runners DROP COLUMN log;
";

/// Each GitHub server counts ids by itself. The host of a job is in the URL of its web page.
/// Deliveries need no host in their key, since their own ids differ.
const HOSTS: &str = "
DROP INDEX jobs_open;
DROP INDEX jobs_by_change;
ALTER TABLE jobs RENAME TO jobs_without_host;
CREATE TABLE jobs (
    id INTEGER NOT NULL,
    run_attempt INTEGER NOT NULL,
    state INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    organization TEXT NOT NULL,
    enterprise TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    head_branch TEXT NOT NULL,
    html_url TEXT NOT NULL,
    labels TEXT NOT NULL,
    conclusion TEXT NOT NULL,
    runner_name TEXT NOT NULL,
    delivery TEXT NOT NULL,
    queued_ms INTEGER NOT NULL,
    started_ms INTEGER,
    completed_ms INTEGER,
    changed_ms INTEGER NOT NULL,
    waiting TEXT,
    waiting_message TEXT,
    -- By GitHub's clock; NULL if GitHub did not send it.
    created_ms INTEGER,
    host TEXT NOT NULL,
    PRIMARY KEY (id, run_attempt, host)
) STRICT;
INSERT INTO jobs
    SELECT *, iif(
        instr(html_url, '://') = 0,
        '',
        lower(substr(
            substr(html_url, instr(html_url, '://') + 3),
            1,
            instr(substr(html_url, instr(html_url, '://') + 3) || '/', '/') - 1
        ))
    )
    FROM jobs_without_host ORDER BY rowid;
DROP TABLE jobs_without_host;
CREATE INDEX jobs_open ON jobs (queued_ms) WHERE state < 2;
CREATE INDEX jobs_by_change ON jobs (changed_ms);

ALTER TABLE deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';
UPDATE deliveries SET host = coalesce(
    (SELECT jobs.host FROM jobs
     WHERE jobs.id = job_id AND jobs.run_attempt = deliveries.run_attempt),
    ''
);

ALTER TABLE runners ADD COLUMN host TEXT NOT NULL DEFAULT '';
UPDATE runners SET host = coalesce(
    (SELECT jobs.host FROM jobs WHERE jobs.id = job_id AND jobs.run_attempt = job_run_attempt),
    ''
) WHERE job_id IS NOT NULL;

ALTER TABLE hooks RENAME TO hooks_without_host;
CREATE TABLE hooks (
    -- Empty if an earlier version saw it.
    host TEXT NOT NULL,
    -- Path in the REST API, without the leading slash.
    hook TEXT NOT NULL,
    -- The GitHub App that the webhook belongs to; 0 for other webhooks.
    app_id INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    -- Every delivery before this time has arrived or was given up.
    settled_ms INTEGER NOT NULL,
    PRIMARY KEY (host, hook, app_id)
) STRICT, WITHOUT ROWID;
INSERT INTO hooks SELECT '', * FROM hooks_without_host;
DROP TABLE hooks_without_host;
";

/// Nearly all runners are gone, and those that are not are read at every start and sweep.
const RUNNERS_BY_END: &str = "
CREATE INDEX runners_present ON runners (created_ms) WHERE gone_ms IS NULL;
CREATE INDEX runners_gone ON runners (gone_ms) WHERE gone_ms IS NOT NULL;
";

/// Where each runner runs.
const PROVIDERS: &str = "
-- Empty if an earlier version launched it.
ALTER TABLE runners ADD COLUMN provider TEXT NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN node TEXT;
";

/// Whose code a job runs.
const ORIGINS: &str = "
-- Of the repository, as GitHub names it; empty if it is not known.
ALTER TABLE jobs ADD COLUMN visibility TEXT NOT NULL DEFAULT '';
-- Whether the run is of a pull request from a fork; NULL if it is not known.
ALTER TABLE jobs ADD COLUMN from_fork INTEGER;
";

/// How runners ended, what they used, and which jobs are run again because of that.
const ACCOUNTS: &str = "
-- Stable name of the reason; NULL if it is not known.
ALTER TABLE runners ADD COLUMN end_reason TEXT;
-- The most at a time; NULL if it was not measured.
ALTER TABLE runners ADD COLUMN memory_peak_bytes INTEGER;
-- In thousandths of a processor.
ALTER TABLE runners ADD COLUMN cpu_peak_millis INTEGER;
-- When GitHub was asked to run it again, or that was given up.
ALTER TABLE jobs ADD COLUMN rerun_ms INTEGER;
";

/// Which images an installation may remove.
const IMAGES: &str = "
CREATE TABLE images (
    -- The ID of the Engine that has it.
    engine TEXT NOT NULL,
    id TEXT NOT NULL,
    -- By which it was pulled.
    name TEXT NOT NULL,
    pulled_ms INTEGER NOT NULL,
    PRIMARY KEY (engine, id)
) STRICT, WITHOUT ROWID;
";

/// Who changed what.
const AUDIT: &str = "
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    -- IP address; empty if it is not known.
    address TEXT NOT NULL,
    action TEXT NOT NULL,
    -- Empty for all.
    target TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_age ON audit (at_ms);
";

/// More of each launch, for the time line of its job.
const LAUNCHES: &str = "
-- When GitHub first listed it as online without a job; NULL if it is not known.
ALTER TABLE runners ADD COLUMN online_ms INTEGER;
-- Name of the credential; NULL if an earlier version launched it.
ALTER TABLE runners ADD COLUMN credential TEXT;
";
