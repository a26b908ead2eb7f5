//! The figures of scenarios.

use std::fmt;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

/// The result of one scenario.
pub(crate) struct Figures {
    pub(crate) jobs: usize,
    /// Jobs whose `queued` was answered with 202.
    pub(crate) accepted: usize,
    pub(crate) ran: usize,
    /// Containers started.
    pub(crate) launches: usize,
    /// Number of faults.
    pub(crate) faults: usize,
    /// The highest number of containers at the same time, and the limit.
    pub(crate) live: (usize, usize),
    pub(crate) took: Duration,
}

pub(crate) enum Outcome {
    Done(Figures),
    /// Not possible on this machine.
    Skipped(String),
    Failed,
}

impl From<Figures> for Outcome {
    fn from(figures: Figures) -> Self {
        Self::Done(figures)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(_) => f.write_str("ok"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Failed => f.write_str("FAILED"),
        }
    }
}

pub(crate) fn table(rows: &[(&str, Outcome)]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "scenario",
        "jobs",
        "answered 202",
        "ran",
        "launches",
        "faults",
        "most live",
        "of max",
        "seconds",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (name, outcome) in rows {
        match outcome {
            Outcome::Done(figures) => table.add_row([
                (*name).to_owned(),
                figures.jobs.to_string(),
                figures.accepted.to_string(),
                figures.ran.to_string(),
                figures.launches.to_string(),
                figures.faults.to_string(),
                figures.live.0.to_string(),
                figures.live.1.to_string(),
                format!("{:.1}", figures.took.as_secs_f64()),
            ]),
            other => table.add_row([(*name).to_owned(), other.to_string()]),
        };
    }
    table
}
