//! What needs attention, as text: the findings that the status page shows first.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::output::{age, printable};
use crate::control::attention::{Finding, Group};
use edgerunner_scheduler::model::UnixMs;

/// If nothing else is to be said.
pub(super) const CALM: &str = "Nothing is broken, and no job is blocked.";

/// The heading of a group, and its colour.
pub(super) fn heading(group: Group) -> (&'static str, Style) {
    match group {
        Group::Broken => ("Broken", AnsiColor::Red.on_default().bold()),
        Group::Blocked => ("Blocked", AnsiColor::Yellow.on_default().bold()),
        Group::Waiting => ("Waiting", AnsiColor::Cyan.on_default().bold()),
    }
}

/// Whether there is nothing that anybody must do.
pub(super) fn is_calm(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.group == Group::Waiting)
}

/// By group, each with what to do. One line if there is nothing to do.
pub(super) fn describe(findings: &[Finding], now: UnixMs) -> String {
    let mut text = String::new();
    if is_calm(findings) {
        let green = AnsiColor::Green.on_default();
        _ = writeln!(text, "{green}{CALM}{green:#}");
    }
    let mut group = None;
    for finding in findings {
        if group.replace(finding.group) != Some(finding.group) {
            let (name, style) = heading(finding.group);
            _ = writeln!(text, "{style}{name}{style:#}");
        }
        let bold = Style::new().bold();
        let title = printable(finding.title.clone());
        let facts = facts(finding, now);
        let facts = if facts.is_empty() { facts } else { format!(" ({facts})") };
        _ = writeln!(text, "  {bold}{title}{bold:#}{facts}");
        for line in details(finding) {
            _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// The cause, what to do, and the command for that.
pub(super) fn details(finding: &Finding) -> Vec<String> {
    let command = finding.command.as_ref().map(|command| format!("Run: {command}"));
    [Some(finding.text.clone()), Some(finding.advice.clone()), command]
        .into_iter()
        .flatten()
        .filter(|line| !line.is_empty())
        .map(printable)
        .collect()
}

/// The jobs that wait for it, how long it has been so, and when it is tried again.
pub(super) fn facts(finding: &Finding, now: UnixMs) -> String {
    let jobs = match finding.jobs {
        0 => None,
        1 => Some("1 job".to_owned()),
        jobs => Some(format!("{jobs} jobs")),
    };
    let jobs = jobs.map(|jobs| match finding.oldest_ms {
        Some(oldest) => format!("{jobs}, oldest {}", age(oldest, now)),
        None => jobs,
    });
    let since = finding.since_ms.map(|since| format!("{} ago", age(since, now)));
    let until = finding.until_ms.map(|until| match until > now {
        true => format!("next try in {}", age(now, until)),
        false => "trying again now".to_owned(),
    });
    [jobs, since, until].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: UnixMs = 1_000_000;

    /// One of each group.
    pub(in crate::cli) fn findings(now: UnixMs) -> Vec<Finding> {
        let finding = |group: &str, title: &str, advice: &str, command: Value, jobs: usize| {
            let finding = json!({
                "group": group, "title": title, "text": format!("{title}: the cause"),
                "advice": advice, "command": command, "jobs": jobs,
                "oldest_ms": (jobs > 0).then_some(now - 300_000),
                "since_ms": (group == "broken").then_some(now - 12_000),
                "until_ms": (group == "broken").then_some(now + 4_000),
            });
            serde_json::from_value(finding).unwrap()
        };
        vec![
            finding("broken", "Failing: pool a", "Start Docker.", "edgerunner doctor".into(), 3),
            finding("blocked", "Pool b\u{1b} is draining", "", "edgerunner resume".into(), 0),
            finding("waiting", "1 job waiting", "", Value::Null, 1),
        ]
    }

    fn plain(findings: &[Finding]) -> String {
        anstream::adapter::strip_str(&describe(findings, NOW)).to_string()
    }

    #[test]
    fn findings_are_shown_by_group_each_with_what_to_do() {
        assert_eq!(
            plain(&findings(NOW)),
            "Broken
  Failing: pool a (3 jobs, oldest 5 min · 12 s ago · next try in 4 s)
    Failing: pool a: the cause
    Start Docker.
    Run: edgerunner doctor
Blocked
  Pool b  is draining
    Pool b  is draining: the cause
    Run: edgerunner resume
Waiting
  1 job waiting (1 job, oldest 5 min)
    1 job waiting: the cause
"
        );
    }

    #[test]
    fn one_green_line_says_that_there_is_nothing_to_do() {
        let green = format!("\x1b[32m{CALM}\x1b[0m\n");
        assert_eq!(describe(&[], NOW), green);
        assert!(describe(&findings(NOW)[2..], NOW).starts_with(&green), "jobs may wait as usual");
        assert!(!describe(&findings(NOW)[1..], NOW).contains(CALM));
    }
}
