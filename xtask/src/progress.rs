//! Progress of long steps: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain log reports that a step is still running.
const HEARTBEAT: Duration = Duration::from_secs(30);

pub(crate) struct Step {
    label: String,
    started: Instant,
    reported: Instant,
    detail: String,
    spinner: Option<ProgressBar>,
    ended: bool,
}

impl Step {
    pub(crate) fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let now = Instant::now();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(label.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:>6}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        if spinner.is_none() {
            eprintln!("… {label}");
        }
        Self { label, started: now, reported: now, detail: String::new(), spinner, ended: false }
    }

    /// Shows what the step is doing now.
    pub(crate) fn detail(&mut self, detail: &str) {
        detail.trim().clone_into(&mut self.detail);
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{}: {}", self.label, self.detail));
        }
    }

    /// Prints a line that stays, such as that a package is being installed.
    pub(crate) fn say(&self, line: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(format!("  {line}")),
            None => eprintln!("  {line}"),
        }
    }

    /// To be called every now and then; prints a line if it is time for one.
    pub(crate) fn heartbeat(&mut self) {
        if self.spinner.is_none() && self.reported.elapsed() >= HEARTBEAT {
            self.reported = Instant::now();
            eprintln!(
                "  still {}: {} ({})",
                self.label,
                self.detail,
                seconds(self.started.elapsed())
            );
        }
    }

    pub(crate) fn done(mut self, outcome: &str) {
        let separator = if outcome.is_empty() { "" } else { ": " };
        self.end(&format!("✓ {}{separator}{outcome}", self.label));
    }

    fn end(&mut self, line: &str) {
        self.ended = true;
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("{line} ({})", seconds(self.started.elapsed()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            let line = format!("✗ {}", self.label);
            self.end(&line);
        }
    }
}

pub(crate) fn seconds(elapsed: Duration) -> String {
    let total = elapsed.as_secs();
    if total < 60 {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{} min {:02} s", total / 60, total % 60)
    }
}
