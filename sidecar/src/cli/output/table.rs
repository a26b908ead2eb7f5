//! A table: with a header, colours for states, and text that is cut to the terminal's width.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, presets::NOTHING};
use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How wide a table may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Width(Option<u16>);

impl Width {
    /// As wide as its content.
    pub(in crate::cli) const FULL: Self = Self(None);

    /// That of the terminal; the full width in a pipe or file.
    pub(in crate::cli) fn of_terminal() -> Self {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        Self(size.map(|size| size.ws_col).filter(|width| *width > 0))
    }

    pub(in crate::cli) fn columns(width: u16) -> Self {
        Self(Some(width))
    }
}

/// A table with a header, and colours for states. IDs, states and numbers are always shown
/// whole.
pub(in crate::cli) struct Table {
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
    /// The width of the widest cell that is not to be cut.
    kept: usize,
    /// Columns with a rank are left out of a narrow terminal, the lowest rank first.
    rank: Option<usize>,
    /// Left out if no row has anything in it.
    if_any: bool,
}

impl Column {
    fn room(&self, width: usize) -> usize {
        self.text_min.map_or(0, |least| width.saturating_sub(least.max(self.kept)))
    }
}

/// Blanks between columns.
const GAP: usize = 2;
/// The width that is left of text if no more columns can be left out.
const TEXT_MIN: usize = 8;
/// The width that is left for wrapped text.
const WRAPPED_MIN: usize = 24;

impl Table {
    pub(in crate::cli) fn new<const N: usize>(names: [&'static str; N], states: &[usize]) -> Self {
        let columns = names.into_iter().enumerate().map(|(index, name)| Column {
            name,
            is_state: states.contains(&index),
            text_min: None,
            kept: 0,
            rank: None,
            if_any: false,
        });
        Self { columns: columns.collect(), rows: Vec::new(), wrapped: false }
    }

    /// Columns with text that is cut if the terminal is narrow, the widest first. Optional
    /// columns are left out before less than this width is left of each.
    pub(in crate::cli) fn cut(mut self, texts: &[(usize, usize)]) -> Self {
        for (index, text_min) in texts {
            let column = &mut self.columns[*index];
            column.text_min = Some((*text_min).max(column.name.len()));
        }
        self
    }

    /// Columns that a narrow terminal has no room for, the least important first.
    pub(in crate::cli) fn optional(mut self, columns: &[usize]) -> Self {
        for (rank, index) in columns.iter().enumerate() {
            self.columns[*index].rank = Some(rank);
        }
        self
    }

    /// A column that is left out if no row has anything in it.
    pub(in crate::cli) fn if_any(mut self, column: usize) -> Self {
        self.columns[column].if_any = true;
        self
    }

    /// Text in the last column is never cut: it continues on further lines.
    pub(in crate::cli) fn wrapped(mut self) -> Self {
        self.wrapped = true;
        self
    }

    pub(in crate::cli) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.map(printable).to_vec());
    }

    /// This cell is not text, such as an ID: its column stays as wide as that.
    pub(in crate::cli) fn keep(&mut self, column: usize, cell: &str) {
        let kept = &mut self.columns[column].kept;
        *kept = cell.width().max(*kept);
    }

    /// No wider than the terminal, if there is one and the columns that are never cut fit.
    pub(in crate::cli) fn fitted(self) -> String {
        self.within(Width::of_terminal())
    }

    /// No wider than `width`, if the columns that are never cut fit.
    pub(in crate::cli) fn within(self, width: Width) -> String {
        self.lines(width).iter().map(|line| styled(line)).collect()
    }

    /// The header and the rows, with marks in place of styles; see [`parts`].
    pub(in crate::cli) fn lines(mut self, Width(width): Width) -> Vec<String> {
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
        table.trim_fmt().lines().map(str::to_owned).collect()
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
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
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

/// The parts of a line of a table, each with its style.
pub(in crate::cli) fn parts(line: &str) -> Vec<(Style, String)> {
    let mut parts = vec![(Style::new(), String::new())];
    for character in line.chars() {
        match (style_of(character), parts.last_mut()) {
            (Some(style), _) => parts.push((style, String::new())),
            (None, Some((_, text))) => text.push(character),
            (None, None) => {}
        }
    }
    parts.retain(|(_, text)| !text.is_empty());
    parts
}

/// The line with escape sequences in place of marks. No style goes on in the next line.
fn styled(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for (style, part) in parts(line) {
        _ = write!(text, "{style}{part}{style:#}");
    }
    text + "\n"
}

/// Workflows choose names and labels, which must not control the terminal.
pub(in crate::cli) fn printable(text: String) -> String {
    text.replace(|it: char| it.is_control() || style_of(it).is_some(), " ")
}

fn color_of(state: &str) -> Option<char> {
    match state {
        "queued" | "provisioning" | "starting" | "leaving" | "drain" | "pause" | "Blocked" => {
            Some(YELLOW)
        }
        "in_progress" | "busy" | "Waiting" => Some(CYAN),
        "idle" | "success" | "ok" | "ready" | "plans" => Some(GREEN),
        "failure" | "timed_out" | "failed" | "down" | "disconnected" | "unreachable" | "silent"
        | "Broken" => Some(RED),
        _ => None,
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
            let text = plain(&jobs().within(Width::columns(width)));
            assert_eq!(text.lines().count(), 3, "{text}");
            for line in text.lines() {
                assert!(line.width() <= width.into(), "{width}: {line}");
            }
            assert!(text.contains("57012345678") && text.contains("in_progress"), "{text}");
            assert!(text.contains('…'), "{text}");
            assert!(!text.contains("RUNNER") || text.contains("edge-default-1a2b3c4d"), "{text}");
        }
        let narrow = plain(&jobs().within(Width::columns(60)));
        assert!(!narrow.contains("RUNNER") && !narrow.contains("REPOSITORY"), "{narrow}");
        let wider = plain(&jobs().within(Width::columns(80)));
        assert!(!wider.contains("RUNNER") && wider.contains("REPOSITORY"), "{wider}");
        let narrowest = plain(&jobs().within(Width::columns(50)));
        assert!(narrowest.contains("no pool"), "{narrowest}");
        let whole = plain(&jobs().within(Width::FULL));
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
        let narrow = plain(&table().within(Width::columns(60)));
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
            plain(&table.within(Width::FULL))
        };
        assert_eq!(table(""), "RUNNER  POOL\na       x\nb       y\n");
        assert!(table("build-1").contains("NODE"));
    }

    #[test]
    fn columns_are_aligned_and_two_spaces_apart() {
        let whole = plain(&table().within(Width::FULL));
        let details = "no pool has the label gpu, which the job asks for";
        assert_eq!(whole, format!("JOB    STATE   DETAILS\n12345  queued  {details}\n"));
    }

    #[test]
    fn names_in_workflows_do_not_control_the_terminal() {
        let mut table = Table::new(["REPOSITORY"], &[]);
        table.push(["a\x1b[2Jb\nc\u{2064}".into()]);
        assert!(table.within(Width::FULL).ends_with("a [2Jb c\n"));
    }

    #[test]
    fn only_states_are_coloured() {
        let text = table().within(Width::FULL);
        assert!(text.contains("\x1b[33mqueued\x1b[0m"), "{text:?}");
        assert!(!text.contains("\x1b[33m12345"), "{text:?}");
    }
}
