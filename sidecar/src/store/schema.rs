//! Opening the database, and its tables.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// Marks the file as ours ("edge" in ASCII).
const APPLICATION_ID: i64 = 0x6564_6765;

/// Each brings the database from the version of its index to the next. What is here
/// stays as it is: databases were made with it.
const MIGRATIONS: [&str; 6] = [FIRST, WAITING, DELIVERIES_BY_JOB, HOOKS, TIME_LINE, ROWIDS];
const VERSION: i64 = MIGRATIONS.len() as i64;

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

-- Pools that drain; an empty name stands for all of them.
CREATE TABLE draining (
    pool TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
";

const WAITING: &str = "
ALTER TABLE jobs ADD COLUMN waiting TEXT;
ALTER TABLE jobs ADD COLUMN waiting_message TEXT;
";

/// A redelivery tells of the same job, and the ids of jobs rise, so that deliveries of one
/// time are neighbours: by their random ids each would change a page of its own.
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
    -- Path in the REST API, without the slash before it.
    hook TEXT NOT NULL,
    -- GitHub App whose own hook it is; 0 for other hooks.
    app_id INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    -- What it delivered before has arrived or was given up.
    settled_ms INTEGER NOT NULL,
    PRIMARY KEY (hook, app_id)
) STRICT, WITHOUT ROWID;
";

const TIME_LINE: &str = "
-- By GitHub's clock; NULL where it did not tell.
ALTER TABLE jobs ADD COLUMN created_ms INTEGER;
-- When the container ran.
ALTER TABLE runners ADD COLUMN started_ms INTEGER;
ALTER TABLE runners ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runners_failed ON runners (created_ms) WHERE failed;
";

/// Without rowids the inner pages of a table hold whole rows, and each of its indexes the
/// whole primary key: of 25 deliveries a commit wrote 27 pages, with rowids 22.
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
    -- By GitHub's clock; NULL where it did not tell.
    created_ms INTEGER,
    PRIMARY KEY (id, run_attempt)
) STRICT;
INSERT INTO jobs SELECT * FROM jobs_without_rowid ORDER BY queued_ms;
DROP TABLE jobs_without_rowid;
CREATE INDEX jobs_open ON jobs (queued_ms) WHERE state < 2;
CREATE INDEX jobs_by_change ON jobs (changed_ms);
";

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("store {path}: {error}", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "store {path}: {error}; check that the directory exists and may be written, and that \
         store.path names it",
        path = path.display()
    )]
    Open { path: PathBuf, error: rusqlite::Error },
    #[error(
        "store {path}: the database is damaged ({what}); nothing was changed. Restore a backup, \
         or move the file and its -wal and -shm away to start with an empty store: jobs that \
         were queued are then found again only when GitHub announces them",
        path = path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "store {path}: this is a database of another program; nothing was changed. Let \
         store.path name a file of edgerunner's own",
        path = path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "store {path}: written by a newer edgerunner (schema {found}, this one knows {VERSION}); \
         nothing was changed. Start that version or a later one",
        path = path.display()
    )]
    Newer { path: PathBuf, found: i64 },
}

pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory)
            .map_err(|error| OpenError::Io { path: path.into(), error })?;
    }
    let fail = |error| failure(path, error);
    let mut connection = Connection::open(path).map_err(fail)?;
    // The last connection to close works the log that a killed process left into
    // the database: not into one that is refused.
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(no_checkpoint, true).map_err(fail)?;
    check(path, &connection)?;
    connection.set_db_config(no_checkpoint, false).map_err(fail)?;
    set_up(&mut connection).map_err(fail)?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| failure(path, error))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(|error| failure(path, error))?;
    Ok(connection)
}

/// Of a process that need not be the one that writes.
pub(super) fn open_to_copy(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_reader(path)?;
    check(path, &connection)?;
    Ok(connection)
}

/// Reads only.
fn check(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let fail = |error| failure(path, error);
    connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(fail)?;
    let application: i64 = pragma("application_id").map_err(fail)?;
    if tables == 0 && application == 0 {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let found: i64 = pragma("user_version").map_err(fail)?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.into(), found });
    }
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
    if verdict != "ok" {
        return Err(OpenError::Damaged { path: path.into(), what: verdict });
    }
    Ok(())
}

fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    // WAL with FULL: a commit is on disk when it returns, and readers do not wait.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);
    let transaction = connection.transaction()?;
    let version: usize = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < MIGRATIONS.len() {
        for migration in &MIGRATIONS[version..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn failure(path: &Path, error: rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            OpenError::Damaged { path: path.into(), what: error.to_string() }
        }
        _ => OpenError::Open { path: path.into(), error },
    }
}
