//! What all commands that show something have alike.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use tabled::{
    builder::Builder,
    settings::{
        Color, Padding, Style, Width,
        object::{Cell, Rows},
        peaker::Priority,
    },
};
use terminal_size::terminal_size_of;

use super::runtime::wait_for;
use edgerunner_scheduler::model::UnixMs;

const WATCH_EVERY: Duration = Duration::from_secs(2);
/// To the upper left corner, and clear what is below.
const ANEW: &str = "\x1b[H\x1b[J";

#[derive(Args, Clone, Copy)]
pub(super) struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Show it anew every two seconds until Ctrl-C; with --json, each on a line.
    #[arg(long)]
    watch: bool,
}

impl Output {
    /// `ask` gets what is printed as JSON, `describe` makes text of it.
    pub(super) fn show<T: Serialize>(
        self,
        ask: impl Fn() -> Result<T>,
        describe: impl Fn(&T) -> Result<String>,
    ) -> Result<()> {
        if !self.watch {
            let answer = ask()?;
            return print(&if self.json { json(&answer)? } else { describe(&answer)? });
        }
        loop {
            let shown = ask().and_then(|answer| match self.json {
                true => Ok(serde_json::to_string(&answer)? + "\n"),
                false => Ok(ANEW.to_owned() + &describe(&answer)?),
            });
            match shown {
                Ok(text) => print(&text)?,
                // It may come back: a sidecar that is started anew, say.
                Err(error) => eprintln!("edgerunner: {error:#}"),
            }
            wait_for(async {
                tokio::time::sleep(WATCH_EVERY).await;
                Ok(())
            })?;
        }
    }
}

/// Without colours, unless to a terminal whose user wants them.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

pub(super) fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).context("the sidecar that answers is of another version")
}

/// Columns with a name each; those of states in colours.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    states: Vec<usize>,
}

impl Table {
    pub(super) fn new<const N: usize>(names: [&str; N], states: &[usize]) -> Self {
        Self { rows: vec![names.map(str::to_owned).to_vec()], states: states.to_vec() }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.map(printable).to_vec());
    }

    /// As wide as the terminal at most.
    pub(super) fn fitted(self) -> String {
        let width = terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        self.within(width)
    }

    fn within(self, width: Option<usize>) -> String {
        let mut table = Builder::from_iter(&self.rows).build();
        table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
        table.modify(Rows::first(), Color::BOLD);
        for (row, cells) in self.rows.iter().enumerate().skip(1) {
            for column in &self.states {
                if let Some(color) = color_of(&cells[*column]) {
                    table.modify(Cell::new(row, *column), color);
                }
            }
        }
        if let Some(width) = width {
            table.with(Width::wrap(width).keep_words(true).priority(Priority::max(true)));
        }
        let lines = table.to_string();
        lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// Names and labels are for workflows to choose, and must not steer the terminal.
fn printable(text: String) -> String {
    text.replace(char::is_control, " ")
}

fn color_of(state: &str) -> Option<Color> {
    match state {
        "queued" | "provisioning" | "starting" | "leaving" => Some(Color::FG_YELLOW),
        "in_progress" | "busy" => Some(Color::FG_CYAN),
        "idle" | "success" | "ok" => Some(Color::FG_GREEN),
        "failure" | "timed_out" | "failed" => Some(Color::FG_RED),
        _ => None,
    }
}

pub(super) fn age(since: UnixMs, now: UnixMs) -> String {
    let seconds = now.saturating_sub(since) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["JOB", "STATE", "WHY"], &[1]);
        table.push([
            "12345".into(),
            "queued".into(),
            "no pool has the label gpu, which the job asks for".into(),
        ]);
        table
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_fits_the_terminal_and_loses_nothing() {
        let whole = plain(&table().within(None));
        assert_eq!(whole.lines().count(), 2, "{whole}");
        let narrow = plain(&table().within(Some(40)));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        let words = |text: &str| text.split_whitespace().count();
        assert_eq!(words(&narrow), words(&whole), "{narrow}");
    }

    #[test]
    fn what_workflows_name_does_not_steer_the_terminal() {
        let mut table = Table::new(["REPOSITORY"], &[]);
        table.push(["a\x1b[2Jb\nc".into()]);
        assert!(table.within(None).ends_with("a [2Jb c\n"));
    }

    #[test]
    fn states_are_in_colours_and_nothing_else_is() {
        let text = table().within(None);
        assert!(text.contains("\x1b[33mqueued"), "{text:?}");
        assert!(!text.contains("\x1b[33m12345"), "{text:?}");
    }
}
