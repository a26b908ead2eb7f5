//! Output of the commands that show something: a table or JSON, once or repeatedly.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result};
use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, presets::NOTHING};
use rustix::termios::tcgetwinsize;
use serde::{Serialize, de::DeserializeOwned};

use super::block_on::block_on;
use edgerunner_scheduler::model::UnixMs;

const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// Moves the cursor to the top left corner and clears the screen below it.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Args, Clone, Copy)]
pub(super) struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Refresh every 2 s until Ctrl-C; with --json, one object per line.
    #[arg(long)]
    watch: bool,
}

impl Output {
    /// `get` returns what is printed as JSON; `describe` makes text of it.
    pub(super) fn show<T: Serialize>(
        self,
        get: impl Fn() -> Result<T>,
        describe: impl Fn(&T) -> Result<String>,
    ) -> Result<()> {
        if !self.watch {
            let value = get()?;
            return print(&if self.json { json(&value)? } else { describe(&value)? });
        }
        loop {
            let shown = get().and_then(|value| match self.json {
                true => Ok(serde_json::to_string(&value)? + "\n"),
                false => Ok(CLEAR.to_owned() + &describe(&value)?),
            });
            match shown {
                Ok(text) => print(&text)?,
                // It may be temporary, for example while the sidecar restarts.
                Err(error) => eprintln!("edgerunner: {error:#}"),
            }
            block_on(async {
                tokio::time::sleep(REFRESH_EVERY).await;
                Ok(())
            })?;
        }
    }
}

/// Prints to standard output, with styles only if it is a terminal that wants them.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

pub(super) fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value)
        .context("unexpected response: does the sidecar have another version than this command?")
}

/// A table with a header, and colours for states.
pub(super) struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns that show states.
    states: Vec<usize>,
}

impl Table {
    pub(super) fn new<const N: usize>(names: [&str; N], states: &[usize]) -> Self {
        Self { names: names.map(str::to_owned).to_vec(), rows: Vec::new(), states: states.to_vec() }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.map(printable).to_vec());
    }

    /// No wider than the terminal, if there is one.
    pub(super) fn fitted(self) -> String {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        self.within(size.map(|size| size.ws_col).filter(|width| *width > 0))
    }

    fn within(self, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING);
        table.set_header(self.names.iter().map(|name| marked(BOLD, name)));
        for mut row in self.rows {
            for column in &self.states {
                if let Some(color) = color_of(&row[*column]) {
                    row[*column] = marked(color, &row[*column]);
                }
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            // A state that is broken over two lines would colour the columns next to it.
            let last = self.names.len() - 1;
            for column in self.states.iter().filter(|column| **column != last) {
                if let Some(column) = table.column_mut(*column) {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        table.trim_fmt().lines().map(styled).collect()
    }
}

// A table is laid out with marks in place of escape sequences, which would count as text. The
// marks are characters of zero width.

const BOLD: char = '\u{2060}';
const YELLOW: char = '\u{2061}';
const CYAN: char = '\u{2062}';
const GREEN: char = '\u{2063}';
const RED: char = '\u{2064}';
const END: char = '\u{200b}';

fn style_of(mark: char) -> Option<Style> {
    match mark {
        BOLD => Some(Style::new().bold()),
        YELLOW => Some(AnsiColor::Yellow.on_default()),
        CYAN => Some(AnsiColor::Cyan.on_default()),
        GREEN => Some(AnsiColor::Green.on_default()),
        RED => Some(AnsiColor::Red.on_default()),
        END => Some(Style::new()),
        _ => None,
    }
}

fn marked(mark: char, text: &str) -> String {
    format!("{mark}{text}{END}")
}

/// The line with escape sequences in place of marks. No style goes on in the next line.
fn styled(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut current = Style::new();
    for character in line.chars() {
        match style_of(character) {
            Some(style) => {
                _ = write!(text, "{current:#}{style}");
                current = style;
            }
            None => text.push(character),
        }
    }
    _ = writeln!(text, "{current:#}");
    text
}

/// Workflows choose names and labels, which must not control the terminal.
fn printable(text: String) -> String {
    text.replace(|it: char| it.is_control() || style_of(it).is_some(), " ")
}

fn color_of(state: &str) -> Option<char> {
    match state {
        "queued" | "provisioning" | "starting" | "leaving" => Some(YELLOW),
        "in_progress" | "busy" => Some(CYAN),
        "idle" | "success" | "ok" => Some(GREEN),
        "failure" | "timed_out" | "failed" => Some(RED),
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
        let mut table = Table::new(["JOB", "STATE", "DETAILS"], &[1]);
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
    fn columns_are_aligned_and_two_spaces_apart() {
        let whole = plain(&table().within(None));
        let details = "no pool has the label gpu, which the job asks for";
        assert_eq!(whole, format!("JOB    STATE   DETAILS\n12345  queued  {details}\n"));
    }

    #[test]
    fn names_in_workflows_do_not_control_the_terminal() {
        let mut table = Table::new(["REPOSITORY"], &[]);
        table.push(["a\x1b[2Jb\nc\u{2064}".into()]);
        assert!(table.within(None).ends_with("a [2Jb c\n"));
    }

    #[test]
    fn only_states_are_coloured() {
        let text = table().within(None);
        assert!(text.contains("\x1b[33mqueued\x1b[0m"), "{text:?}");
        assert!(!text.contains("\x1b[33m12345"), "{text:?}");
    }
}
