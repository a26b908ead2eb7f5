//! Copies everything from SQLite to Postgres.

use std::path::Path;

use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    error::OpenError,
    postgres::{ConnectError, Import},
    sqlite::Export,
};
use crate::config::Database;

/// Rows that are read before they are written.
const ROWS_AHEAD: usize = 1_000;

/// A value of a column, in both databases.
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
}

/// How Postgres stores a column; SQLite has numbers and texts.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Number,
    State,
    Flag,
    Text,
}

pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

use Kind::{Flag, Number, State, Text};

/// A table comes after those that it refers to.
pub(super) const TABLES: [Table; 8] = [
    Table {
        name: "deliveries",
        columns: &[
            ("id", Text),
            ("received_ms", Number),
            ("hook", Text),
            ("hook_id", Number),
            ("hook_target_type", Text),
            ("hook_target_id", Number),
            ("state", State),
            ("job_id", Number),
            ("run_attempt", Number),
            ("host", Text),
        ],
    },
    Table {
        name: "jobs",
        columns: &[
            ("id", Number),
            ("run_attempt", Number),
            ("host", Text),
            ("state", State),
            ("run_id", Number),
            ("repository", Text),
            ("organization", Text),
            ("enterprise", Text),
            ("name", Text),
            ("workflow_name", Text),
            ("head_branch", Text),
            ("html_url", Text),
            ("labels", Text),
            ("conclusion", Text),
            ("runner_name", Text),
            ("delivery", Text),
            ("created_ms", Number),
            ("queued_ms", Number),
            ("started_ms", Number),
            ("completed_ms", Number),
            ("changed_ms", Number),
            ("waiting", Text),
            ("waiting_message", Text),
            ("visibility", Text),
            ("from_fork", Flag),
            ("rerun_ms", Number),
        ],
    },
    Table {
        name: "runners",
        columns: &[
            ("name", Text),
            ("pool", Text),
            ("provider", Text),
            ("node", Text),
            ("host", Text),
            ("target", Text),
            ("phase", Text),
            ("created_ms", Number),
            ("started_ms", Number),
            ("online_ms", Number),
            ("credential", Text),
            ("registration_id", Number),
            ("job_id", Number),
            ("job_run_attempt", Number),
            ("why", Text),
            ("end_reason", Text),
            ("failed", Flag),
            ("gone_ms", Number),
            ("memory_peak_bytes", Number),
            ("cpu_peak_millis", Number),
        ],
    },
    Table { name: "runner_logs", columns: &[("runner", Text), ("log", Text)] },
    Table { name: "draining", columns: &[("pool", Text)] },
    Table {
        name: "images",
        columns: &[("engine", Text), ("id", Text), ("name", Text), ("pulled_ms", Number)],
    },
    Table {
        name: "audit",
        columns: &[
            ("at_ms", Number),
            ("who", Text),
            ("address", Text),
            ("action", Text),
            ("target", Text),
            ("outcome", Text),
        ],
    },
    Table {
        name: "hooks",
        columns: &[
            ("host", Text),
            ("hook", Text),
            ("app_id", Number),
            ("seen_ms", Number),
            ("settled_ms", Number),
        ],
    },
];

/// How many rows of each table were copied.
pub(crate) type Copied = Vec<(&'static str, u64)>;

/// Copies a SQLite database, which nobody may use meanwhile, to a Postgres database without
/// records: all of it or nothing. The first one is only read.
pub(crate) async fn copy(from: &Path, to: &Database) -> Result<Copied, OpenError> {
    let path = from.to_owned();
    let mut export =
        spawn_blocking(move || Export::open(&path)).await.map_err(|error| ended(from, error))??;
    let failed = |error: ConnectError| error.about(&to.url);
    let mut client = Import::connect(to).await?;
    let import = Import::begin(&mut client).await.map_err(failed)?;
    let mut copied = Vec::new();
    for table in &TABLES {
        let (sender, rows) = mpsc::channel(ROWS_AHEAD);
        let reading = spawn_blocking(move || {
            let count = export.send(table, &sender);
            (export, count)
        });
        let written = import.copy(table, rows).await.map_err(failed)?;
        let (returned, count) = reading.await.map_err(|error| ended(from, error))?;
        export = returned;
        let count = count.map_err(|error| ended(from, error))?;
        if written != count {
            let message = format!(
                "table {}: {written} of {count} rows arrived; nothing was changed",
                table.name
            );
            return Err(OpenError::new(&to.url, message));
        }
        copied.push((table.name, count));
    }
    import.commit().await.map_err(failed)?;
    Ok(copied)
}

fn ended(from: &Path, error: impl std::error::Error) -> OpenError {
    OpenError::new(&from.display(), error.to_string())
}
