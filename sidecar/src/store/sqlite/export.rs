//! Reads a whole database, row by row, to copy it elsewhere.

use std::path::Path;

use rusqlite::{Connection, types::ValueRef};
use tokio::sync::mpsc;

use super::{
    lock::{self, Lock},
    schema::{self, VERSION},
};
use crate::store::{
    copy::{Table, Value},
    error::OpenError,
};

/// A database that nobody changes while this is held.
pub(in crate::store) struct Export {
    connection: Connection,
    _lock: Lock,
}

impl Export {
    /// Fails if another process has the database, or if it is damaged or of another version. It is
    /// only read.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, OpenError> {
        // A lock would leave a file beside a name that was mistyped.
        if !path.is_file() {
            return Err(schema::open_error(path, &"there is no such file"));
        }
        let lock = lock::lock(path)?;
        let connection = schema::open_reader(path)?;
        let version = schema::check(path, &connection)?;
        if version != VERSION {
            let message = format!(
                "written by an earlier edgerunner (schema {version}, this version has {VERSION}): \
                 run `edgerunner serve` of this version with it once, which upgrades it"
            );
            return Err(schema::open_error(path, &message));
        }
        schema::search(path, &connection)?;
        Ok(Self { connection, _lock: lock })
    }

    /// Sends all rows of a table, and returns how many it has.
    pub(in crate::store) fn send(
        &self,
        table: &Table,
        rows: &mpsc::Sender<Vec<Value>>,
    ) -> rusqlite::Result<u64> {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let query = format!("SELECT {} FROM {}", names.join(", "), table.name);
        let mut statement = self.connection.prepare(&query)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let value = |index| {
                Ok(match row.get_ref(index)? {
                    ValueRef::Integer(number) => Value::Number(number),
                    ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                    // No column has other types.
                    ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
                })
            };
            let values: rusqlite::Result<_> = (0..names.len()).map(value).collect();
            // Nobody receives them after an error, which is reported there.
            if rows.blocking_send(values?).is_err() {
                break;
            }
        }
        let count = format!("SELECT count(*) FROM {}", table.name);
        self.connection.query_row(&count, [], |row| row.get(0))
    }
}
