//! Progress of long steps: a line that changes on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain log reports that a step is still running.
const HEARTBEAT: Duration = Duration::from_secs(10);
const CLEAR_LINE: &str = "\r\x1b[2K";
const LINE_LENGTH: usize = 76;

pub(crate) struct Step {
    label: String,
    started: Instant,
    reported: Instant,
    terminal: bool,
    ended: bool,
}

impl Step {
    pub(crate) fn start(label: impl Into<String>) -> Self {
        let (label, now) = (label.into(), Instant::now());
        let terminal = std::io::stderr().is_terminal();
        match terminal {
            // Another step may be in progress.
            true => eprint!("{CLEAR_LINE}… {label}"),
            false => eprintln!("… {label}"),
        }
        Self { label, started: now, reported: now, terminal, ended: false }
    }

    /// Shows what the step is doing now.
    pub(crate) fn detail(&mut self, detail: &str) {
        let elapsed = seconds(self.started.elapsed());
        let line = format!("… {} ({elapsed}): {}", self.label, detail.trim());
        if self.terminal {
            eprint!("{CLEAR_LINE}{}", line.chars().take(LINE_LENGTH).collect::<String>());
        } else if self.reported.elapsed() >= HEARTBEAT {
            self.reported = Instant::now();
            eprintln!("{line}");
        }
    }

    /// Prints a line that stays, such as that a package is being installed.
    pub(crate) fn say(&self, line: &str) {
        eprintln!("{}  {line}", if self.terminal { CLEAR_LINE } else { "" });
    }

    pub(crate) fn done(mut self, outcome: &str) {
        let separator = if outcome.is_empty() { "" } else { ": " };
        self.end(&format!("✓ {}{separator}{outcome}", self.label));
    }

    fn end(&mut self, line: &str) {
        self.ended = true;
        let elapsed = seconds(self.started.elapsed());
        eprintln!("{}{line} ({elapsed})", if self.terminal { CLEAR_LINE } else { "" });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end(&format!("✗ {}", self.label));
        }
    }
}

pub(crate) fn seconds(elapsed: Duration) -> String {
    let total = elapsed.as_secs();
    match total < 60 {
        true => format!("{:.1} s", elapsed.as_secs_f64()),
        false => format!("{} min {:02} s", total / 60, total % 60),
    }
}
