//! Log lines in both formats, and the rules for all places that write them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing::{debug, error, error_span, info, info_span, subscriber::DefaultGuard, warn};

use super::*;

/// What is logged while it lives, on this thread.
pub(crate) struct Captured {
    written: Writer,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for Writer {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}

impl Captured {
    pub(crate) fn json(level: &str) -> Self {
        let written = Writer::default();
        let subscriber = Registry::default().with(json(level, written.clone()));
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn text(level: &str) -> Self {
        let written = Writer::default();
        let subscriber = Registry::default().with(text(level, written.clone(), false));
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn written(&self) -> String {
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines without their times.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            let time = time.as_str().unwrap();
            assert_eq!(time.len(), "2026-01-01T00:00:00.000000Z".len(), "{time}");
            time.parse::<jiff::Timestamp>().unwrap();
            line
        };
        self.written().lines().map(parse).collect()
    }
}

#[test]
fn a_line_has_each_key_once_and_values_of_their_types() {
    let log = Captured::json("info");
    let labels = ["self-hosted", "gpu \"a\""];
    let nothing: Option<&str> = None;
    let launch = error_span!("launch", delivery = "guid-1", runner = "edge-1", pool = "outer");
    launch.in_scope(|| {
        let stage = info_span!("stage", pool = "small", retries = tracing::field::Empty);
        stage.record("retries", 2);
        stage.in_scope(|| {
            let cause = io::Error::other("no\nspace");
            error!(error = %cause, labels = %List(&labels), live = true, share = 0.5, nothing, "failed");
        });
        info!(delivery = "guid-2", exit_code = -1, hook = Some("acme"), "its own come first");
        debug!("not enabled");
    });
    let expected = [
        json!({
            "level": "ERROR", "message": "failed", "error": "no\nspace",
            "labels": ["self-hosted", "gpu \"a\""], "live": true, "share": 0.5,
            "span": "stage", "pool": "small", "retries": 2,
            "delivery": "guid-1", "runner": "edge-1",
        }),
        json!({
            "level": "INFO", "message": "its own come first", "delivery": "guid-2",
            "exit_code": -1, "hook": "acme", "span": "launch", "runner": "edge-1", "pool": "outer",
        }),
    ];
    assert_eq!(log.lines(), expected);
    let first = log.written();
    assert_eq!(first.matches("\"pool\"").count(), 2, "{first}");
    assert!(first.starts_with("{\"timestamp\":\""), "{first}");
}

#[test]
fn errors_of_errors_are_part_of_the_text() {
    let log = Captured::json("info");
    let error = anyhow::Error::new(io::Error::other("refused")).context("cannot connect");
    warn!(%error, "as text");
    warn!(error = &*error as &(dyn std::error::Error + 'static), "as an error");
    for line in log.lines() {
        assert_eq!(line["error"], "cannot connect: refused", "{line}");
    }
}

#[test]
fn text_cannot_pass_for_keys_of_its_own() {
    let log = Captured::json("info");
    let forged = "x\", \"level\": \"ERROR\"}\n{\"a\": 1";
    info!(repository = forged, owner = %forged, "{forged}");
    let line = &log.lines()[0];
    assert_eq!([&line["repository"], &line["owner"], &line["message"]], [forged; 3]);
    assert_eq!(log.lines().len(), 1);
}

#[test]
fn text_for_people_shows_lists_without_json() {
    let log = Captured::text("info");
    error_span!("launch", delivery = "guid-1").in_scope(|| {
        info!(labels = %List(&["self-hosted", "linux"]), count = 2, "event stored");
    });
    let text = log.written();
    let expected =
        "INFO launch{delivery=\"guid-1\"}: event stored labels=[self-hosted, linux] count=2\n";
    assert!(text.ends_with(expected), "{text}");
}

/// A span that the level leaves out would take its fields with it: errors would not say which
/// runner they are about.
#[test]
fn the_fields_of_a_span_are_there_at_every_level() {
    let log = Captured::json("error");
    error_span!("remove", runner = "edge-1").in_scope(|| error!("failed"));
    assert_eq!(log.lines()[0]["runner"], "edge-1");
}

#[test]
fn no_call_logs_debug_output_a_field_named_message_or_a_job_without_its_delivery() {
    let mut found = Vec::new();
    let mut calls = 0;
    for file in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        if file.ends_with("telemetry/logging/tests.rs") {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        for name in ["trace!", "debug!", "info!", "warn!", "error!", "span!"] {
            for (at, _) in source.match_indices(&format!("{name}(")) {
                calls += 1;
                let call = arguments(&source[at + name.len() + 1..]);
                let level = name == "span!"
                    && !source[..at].ends_with("error_")
                    && !source[..at].ends_with("trace_");
                let wrong = call.iter().any(|argument| is_wrong(argument));
                let named = |name| call.iter().any(|argument| name_of(argument) == name);
                let lacks_delivery = named("job") && !named("delivery");
                if wrong || lacks_delivery || level {
                    found.push(format!("{}: {name}({})", file.display(), call.join(", ")));
                }
            }
        }
    }
    assert!(calls > 50, "{calls}");
    assert_eq!(found, [""; 0]);
}

#[test]
fn wrong_arguments_are_recognized() {
    let call = arguments("%job, labels = ?job.labels, \"it = ?\", error = f(a, b), message)");
    assert_eq!(call, ["%job", "labels = ?job.labels", "\"it = ?\"", "error = f(a, b)", "message"]);
    let wrong: Vec<bool> = call.iter().map(|argument| is_wrong(argument)).collect();
    assert_eq!(wrong, [false, true, false, false, true]);
    for wrong in ["?event", "message = text", "%message"] {
        assert!(is_wrong(wrong), "{wrong}");
    }
}

/// `?value`, `name = ?value`, `message`, `message = …`.
fn is_wrong(argument: &str) -> bool {
    let value = argument.split_once('=').map_or("", |(_, value)| value.trim());
    let is_field = !argument.starts_with('"');
    let name = name_of(argument);
    is_field && (name.starts_with('?') || value.starts_with('?') || name == "message")
}

/// The field that an argument sets.
fn name_of(argument: &str) -> &str {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    name.trim().trim_start_matches('%')
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The arguments of a call, from behind its opening bracket on.
fn arguments(source: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut arguments = vec![String::new()];
    for character in source.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(character);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).collect()
}
