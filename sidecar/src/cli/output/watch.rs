//! Repeated output: on a terminal in place, elsewhere one after the other.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use anyhow::Result;
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr as _;

use super::print;
use crate::cli::{block_on::block_on, terminal::Screen};

const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Prints each text after the one before. Errors may be temporary, for example while the sidecar
/// restarts.
pub(super) fn one_after_the_other(next: impl Fn() -> Result<String>) -> Result<()> {
    loop {
        match next() {
            Ok(text) => print(&text)?,
            Err(error) => eprintln!("edgerunner: {error:#}"),
        }
        pause()?;
    }
}

/// Replaces each text by the next one, on a terminal.
pub(super) fn in_place(next: impl Fn() -> Result<String>) -> Result<()> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        // An empty line shows where the next one begins.
        return one_after_the_other(|| Ok(next()? + "\n"));
    }
    let plain = AutoStream::choice(&stdout) == ColorChoice::Never;
    let mut screen = Screen::open()?;
    let mut last = String::new();
    loop {
        let text = match next() {
            Ok(text) => {
                last = if plain { strip_str(&text).to_string() } else { text };
                last.clone()
            }
            Err(error) => format!("edgerunner: {error:#}\n\n{last}"),
        };
        let size = tcgetwinsize(&stdout)?;
        screen.draw(&frame(&text, size.ws_col.into(), size.ws_row.into()))?;
        pause()?;
    }
}

fn pause() -> Result<()> {
    block_on(async {
        tokio::time::sleep(REFRESH_EVERY).await;
        Ok(())
    })
}

/// The lines that fit on a screen: longer ones continue in the next row, and the last row says how
/// many lines are left out.
fn frame(text: &str, width: usize, height: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut rows: Vec<String> = Vec::new();
    // How many lines were shown before each row began.
    let mut shown = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        for row in folded(line, width) {
            rows.push(row);
            shown.push(index);
        }
    }
    if rows.len() > height && height > 0 {
        let left_out = lines.len() - shown[height - 1];
        rows.truncate(height - 1);
        rows.push(format!("… {left_out} more lines"));
    }
    rows
}

/// A line that is wider than the screen, in several rows. Tables are never wider, unless what is
/// not cut has no room, so only plain text is folded.
fn folded(line: &str, width: usize) -> Vec<String> {
    let plain = strip_str(line).to_string();
    if plain.width() <= width || width == 0 || plain != line {
        return vec![line.to_owned()];
    }
    let mut rows = vec![String::new()];
    for word in plain.split_inclusive(' ') {
        let last = rows.last_mut().filter(|row| row.width() + word.trim_end().width() <= width);
        match last {
            Some(row) => row.push_str(word),
            None => rows.push(word.to_owned()),
        }
    }
    rows.retain(|row| !row.is_empty());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_ends_with_how_much_is_left_out() {
        let text = "1\n2\n3\n4\n5\n";
        assert_eq!(frame(text, 80, 5), ["1", "2", "3", "4", "5"]);
        assert_eq!(frame(text, 80, 3), ["1", "2", "… 3 more lines"]);
        assert_eq!(frame("", 80, 3), [""; 0]);
    }

    #[test]
    fn a_long_line_continues_in_the_next_row_between_words() {
        let text = "no pool has the label gpu\nend\n";
        let rows = ["no pool has ", "the label ", "gpu", "end"];
        assert_eq!(frame(text, 12, 9), rows);
        assert_eq!(frame(text, 12, 3), ["no pool has ", "the label ", "… 2 more lines"]);
        let styled = "\x1b[1mno pool has the label gpu\x1b[0m";
        assert_eq!(frame(styled, 12, 9), [styled]);
    }
}
