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
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

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

/// A table with a header, and colours for states. IDs, states and numbers are always shown
/// whole.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Whether text in the last column continues on further lines.
    wrapped: bool,
}

struct Column {
    name: &'static str,
    is_state: bool,
    /// For text that may be cut: the width that is left of it, while there are columns that can
    /// be left out instead.
    text_min: Option<usize>,
    /// Columns with a rank are left out of a narrow terminal, the lowest rank first.
    rank: Option<usize>,
    /// Left out if no row has anything in it.
    if_any: bool,
}

impl Column {
    fn room(&self, width: usize) -> usize {
        self.text_min.map_or(0, |least| width.saturating_sub(least))
    }
}

/// Blanks between columns.
const GAP: usize = 2;
/// The width that is left of text if no more columns can be left out.
const TEXT_MIN: usize = 8;
/// The width that is left for wrapped text.
const WRAPPED_MIN: usize = 24;

impl Table {
    pub(super) fn new<const N: usize>(names: [&'static str; N], states: &[usize]) -> Self {
        let columns = names.into_iter().enumerate().map(|(index, name)| Column {
            name,
            is_state: states.contains(&index),
            text_min: None,
            rank: None,
            if_any: false,
        });
        Self { columns: columns.collect(), rows: Vec::new(), wrapped: false }
    }

    /// Columns with text that is cut if the terminal is narrow, the widest first. Optional
    /// columns are left out before less than this width is left of each.
    pub(super) fn cut(mut self, texts: &[(usize, usize)]) -> Self {
        for (index, text_min) in texts {
            let column = &mut self.columns[*index];
            column.text_min = Some((*text_min).max(column.name.len()));
        }
        self
    }

    /// Columns that a narrow terminal has no room for, the least important first.
    pub(super) fn optional(mut self, columns: &[usize]) -> Self {
        for (rank, index) in columns.iter().enumerate() {
            self.columns[*index].rank = Some(rank);
        }
        self
    }

    /// A column that is left out if no row has anything in it.
    pub(super) fn if_any(mut self, column: usize) -> Self {
        self.columns[column].if_any = true;
        self
    }

    /// Text in the last column is never cut: it continues on further lines.
    pub(super) fn wrapped(mut self) -> Self {
        self.wrapped = true;
        self
    }

    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.map(printable).to_vec());
    }

    /// No wider than the terminal, if there is one and the columns that are never cut fit.
    pub(super) fn fitted(self) -> String {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        self.within(size.map(|size| size.ws_col).filter(|width| *width > 0))
    }

    fn within(mut self, width: Option<u16>) -> String {
        for index in (0..self.columns.len()).rev() {
            if self.columns[index].if_any && self.rows.iter().all(|row| row[index].is_empty()) {
                self.leave_out(index);
            }
        }
        if let Some(width) = width {
            self.fit(width.into());
        }
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING);
        table.set_header(self.columns.iter().map(|column| marked(BOLD, column.name)));
        for mut row in self.rows {
            for (cell, _) in row.iter_mut().zip(&self.columns).filter(|(_, it)| it.is_state) {
                if let Some(color) = color_of(cell) {
                    *cell = marked(color, cell);
                }
            }
            table.add_row(row);
        }
        let last = self.columns.len() - 1;
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP as u16));
            if self.wrapped && index < last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        if let (true, Some(width)) = (self.wrapped, width) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.trim_fmt().lines().map(styled).collect()
    }

    /// Leaves out columns while text would be too short, and then cuts text, until the table is
    /// no wider than `width`.
    fn fit(&mut self, width: usize) {
        while self.over(width) > self.room(&self.widths()) {
            let optional = (0..self.columns.len()).filter(|it| self.columns[*it].rank.is_some());
            let Some(index) = optional.min_by_key(|it| self.columns[*it].rank) else { break };
            self.leave_out(index);
        }
        let over = self.over(width);
        let mut widths = self.widths();
        let short = over.saturating_sub(self.room(&widths));
        if short > 0 {
            for column in &mut self.columns {
                column.text_min = column.text_min.map(|_| column.name.len().max(TEXT_MIN));
            }
        }
        for _ in 0..over {
            let cuttable = (0..widths.len()).filter(|it| self.columns[*it].room(widths[*it]) > 0);
            let Some(widest) = cuttable.max_by_key(|it| widths[*it]) else { break };
            widths[widest] -= 1;
        }
        for row in &mut self.rows {
            for ((cell, column), width) in row.iter_mut().zip(&self.columns).zip(&widths) {
                if column.text_min.is_some() {
                    *cell = cut(cell, *width);
                }
            }
        }
    }

    fn leave_out(&mut self, column: usize) {
        self.columns.remove(column);
        for row in &mut self.rows {
            row.remove(column);
        }
    }

    /// How much too wide it is.
    fn over(&self, width: usize) -> usize {
        let widths = self.widths();
        let gaps = GAP * (widths.len() - 1);
        (widths.iter().sum::<usize>() + gaps).saturating_sub(width)
    }

    /// How much can be cut.
    fn room(&self, widths: &[usize]) -> usize {
        self.columns.iter().zip(widths).map(|(column, width)| column.room(*width)).sum()
    }

    /// The width of each column's content.
    fn widths(&self) -> Vec<usize> {
        let last = self.columns.len() - 1;
        let of = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().map(|row| row[index].width());
            let widest = cells.chain([column.name.width()]).max().unwrap_or(0);
            if self.wrapped && index == last { widest.min(WRAPPED_MIN) } else { widest }
        };
        self.columns.iter().enumerate().map(of).collect()
    }
}

/// At most `width` wide; `…` stands for what is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let kept = text.chars().take_while(|character| {
        let taken = character.width().unwrap_or(0);
        let fits = taken <= left;
        left = left.saturating_sub(taken);
        fits
    });
    let kept: String = kept.collect();
    format!("{}…", kept.trim_end())
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
pub(super) fn printable(text: String) -> String {
    text.replace(|it: char| it.is_control() || style_of(it).is_some(), " ")
}

fn color_of(state: &str) -> Option<char> {
    match state {
        "queued" | "provisioning" | "starting" | "leaving" | "drain" | "pause" => Some(YELLOW),
        "in_progress" | "busy" => Some(CYAN),
        "idle" | "success" | "ok" | "ready" | "plans" => Some(GREEN),
        "failure" | "timed_out" | "failed" | "down" | "disconnected" | "unreachable" | "silent" => {
            Some(RED)
        }
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

    /// Jobs as they are listed: the name may be cut, the ID and the state may not.
    fn jobs() -> Table {
        let names = ["NAME", "REPOSITORY", "STATE", "RUNNER", "DETAILS", "ID"];
        let mut table = Table::new(names, &[2]).cut(&[(0, 12), (1, 12), (4, 16)]).optional(&[3, 1]);
        for (name, id) in [("build (ubuntu, stable)", "57012345678"), ("lint", "9")] {
            table.push([
                name.into(),
                "octo-org/octo-repository".into(),
                "in_progress".into(),
                "edge-default-1a2b3c4d".into(),
                "no pool has the label gpu, which the job asks for".into(),
                id.into(),
            ]);
        }
        table
    }

    #[test]
    fn a_narrow_table_cuts_text_and_never_ids_and_every_row_is_one_line() {
        for width in [60, 80, 100, 120] {
            let text = plain(&jobs().within(Some(width)));
            assert_eq!(text.lines().count(), 3, "{text}");
            for line in text.lines() {
                assert!(line.width() <= width.into(), "{width}: {line}");
            }
            assert!(text.contains("57012345678") && text.contains("in_progress"), "{text}");
            assert!(text.contains('…'), "{text}");
            assert!(!text.contains("RUNNER") || text.contains("edge-default-1a2b3c4d"), "{text}");
        }
        let narrow = plain(&jobs().within(Some(60)));
        assert!(!narrow.contains("RUNNER") && !narrow.contains("REPOSITORY"), "{narrow}");
        let wider = plain(&jobs().within(Some(80)));
        assert!(!wider.contains("RUNNER") && wider.contains("REPOSITORY"), "{wider}");
        let narrowest = plain(&jobs().within(Some(50)));
        assert!(narrowest.contains("no pool"), "{narrowest}");
        let whole = plain(&jobs().within(None));
        assert!(!whole.contains('…') && whole.contains("which the job asks for"), "{whole}");
    }

    #[test]
    fn text_is_cut_by_its_width_on_the_screen() {
        assert_eq!(cut("build", 5), "build");
        assert_eq!(cut("builds", 5), "buil…");
        assert_eq!(cut("run all tests", 9), "run all…");
        assert_eq!(cut("建造軟體", 6), "建造…");
    }

    #[test]
    fn wrapped_text_loses_nothing_and_breaks_between_words() {
        let table = || {
            let mut table =
                Table::new(["CHECK", "RESULT", "FOUND"], &[1]).cut(&[(0, 20)]).wrapped();
            table.push([
                "image ghcr.io/actions/actions-runner:latest".into(),
                "failed".into(),
                "no such image: pull it by hand, or set pull_policy to missing".into(),
            ]);
            table
        };
        let narrow = plain(&table().within(Some(60)));
        assert!(narrow.lines().all(|line| line.width() <= 60), "{narrow}");
        for word in ["pull_policy", "missing", "hand,"] {
            assert!(narrow.contains(word), "{word}: {narrow}");
        }
    }

    #[test]
    fn a_column_that_no_row_needs_is_left_out() {
        let table = |node: &str| {
            let mut table = Table::new(["RUNNER", "NODE", "POOL"], &[]).if_any(1);
            table.push(["a".into(), String::new(), "x".into()]);
            table.push(["b".into(), node.into(), "y".into()]);
            plain(&table.within(None))
        };
        assert_eq!(table(""), "RUNNER  POOL\na       x\nb       y\n");
        assert!(table("build-1").contains("NODE"));
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
