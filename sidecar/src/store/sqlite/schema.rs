//! Opens a database file: checks that it can be used, and upgrades its schema.

use std::{fmt::Display, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    damage::Search,
    migrations::{HOSTS_VERSION, MIGRATIONS},
};
use crate::store::error::OpenError;
use edgerunner_scheduler::model::Host;

/// Marks the file as ours ("edge" in ASCII).
const APPLICATION_ID: i64 = 0x6564_6765;
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;
/// How long a start waits for the search for damage. A database of usual size takes less.
const SEARCH_WAIT: Duration = Duration::from_secs(1);
/// To which the write-ahead log shrinks once all of it is in the database. SQLite lets it grow
/// to 4 MiB before that.
pub(super) const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub(super) fn open_error(path: &Path, message: &impl Display) -> OpenError {
    OpenError::new(&path.display(), message.to_string())
}

fn damaged(path: &Path, details: &impl Display) -> OpenError {
    let message = format!(
        "the database is damaged ({details}); nothing was changed. Restore a backup, or move the \
         file and its -wal and -shm away to start with an empty store: queued jobs are then found \
         again only when GitHub announces them"
    );
    open_error(path, &message)
}

fn foreign(path: &Path) -> OpenError {
    let message = "this database belongs to another program; nothing was changed. Set store.path \
                   to a file that only edgerunner uses";
    open_error(path, &message)
}

fn newer(path: &Path, found: i64) -> OpenError {
    let message = format!(
        "written by a newer edgerunner (schema {found}, this version supports {VERSION}); nothing \
         was changed. Run that version or a later one"
    );
    open_error(path, &message)
}

fn failure(path: &Path, error: &rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged(path, error),
        _ => {
            let message = format!(
                "{error}; check that store.path is right and that its directory exists and is \
                 writable"
            );
            open_error(path, &message)
        }
    }
}

/// `host`: see [`name_host`]. Also returns the search for damage, which may go on.
pub(super) fn open(path: &Path, host: Host) -> Result<(Connection, Search), OpenError> {
    let fail = |error| failure(path, &error);
    let mut connection = Connection::open(path).map_err(fail)?;
    // The last connection to close a database merges the log that a killed process left into
    // it. A database that is rejected must stay as it is.
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(no_checkpoint, true).map_err(fail)?;
    let version = check(path, &connection)?;
    let search = Search::start(path)?;
    // An upgrade writes all of it, which nothing may do to a damaged one.
    let limit = (version == VERSION).then_some(SEARCH_WAIT);
    search.wait(limit)?;
    connection.set_db_config(no_checkpoint, false).map_err(fail)?;
    set_up(&mut connection, host).map_err(fail)?;
    Ok((connection, search))
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| failure(path, &error))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(|error| failure(path, &error))?;
    Ok(connection)
}

/// Another process may be writing to it.
pub(super) fn open_to_copy(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_reader(path)?;
    check(path, &connection)?;
    search(path, &connection)?;
    Ok(connection)
}

/// Checks that the database can be used, and returns the version of its schema; 0 if it is new.
/// Only reads.
pub(super) fn check(path: &Path, connection: &Connection) -> Result<i64, OpenError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let fail = |error| failure(path, &error);
    connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(fail)?;
    let application: i64 = pragma("application_id").map_err(fail)?;
    if tables == 0 && application == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(foreign(path));
    }
    let found: i64 = pragma("user_version").map_err(fail)?;
    if found > VERSION {
        return Err(newer(path, found));
    }
    Ok(found)
}

/// Searches all of the database for damage. Only reads.
pub(super) fn search(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| failure(path, &error))?;
    if verdict != "ok" {
        return Err(damaged(path, &verdict));
    }
    Ok(())
}

fn set_up(connection: &mut Connection, host: Host) -> rusqlite::Result<()> {
    // WAL with FULL: a commit is on disk when it returns, and readers never wait for it.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A reader that stayed open for long has made the log grow.
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    connection.set_prepared_statement_cache_capacity(32);
    let transaction = connection.transaction()?;
    let version: usize = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < MIGRATIONS.len() {
        for migration in &MIGRATIONS[version..] {
            transaction.execute_batch(migration)?;
        }
        if version < HOSTS_VERSION {
            name_host(&transaction, host)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

/// Sets the host of what does not have one after the migration. Runners that are present keep
/// none: their targets say more, see `restore`.
fn name_host(connection: &Connection, host: Host) -> rusqlite::Result<()> {
    for query in [
        "UPDATE jobs SET host = ?1 WHERE host = ''",
        "UPDATE deliveries SET host = ?1 WHERE host = ''",
        "UPDATE runners SET host = ?1 WHERE host = '' AND gone_ms IS NOT NULL",
    ] {
        connection.execute(query, [host.as_str()])?;
    }
    Ok(())
}
