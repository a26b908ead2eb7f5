//! The commands and configurations in the documents: each is tested, or a comment says why not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Authority, TOKEN};
use tempfile::TempDir;

use crate::command_line::check;
use crate::docs_walkthrough::DocsWalkthrough;

const DOCUMENTS: [(&str, &str); 13] = [
    ("CONTRIBUTING.md", include_str!("../../../CONTRIBUTING.md")),
    ("README.md", include_str!("../../../README.md")),
    ("docs/deployment.md", include_str!("../../../docs/deployment.md")),
    ("docs/development.md", include_str!("../../../docs/development.md")),
    ("docs/filter.md", include_str!("../../../docs/filter.md")),
    ("docs/getting-started.md", GETTING_STARTED),
    ("docs/high-availability.md", HIGH_AVAILABILITY),
    ("docs/how-to.md", HOW_TO),
    ("docs/kubernetes.md", include_str!("../../../docs/kubernetes.md")),
    ("docs/operations.md", include_str!("../../../docs/operations.md")),
    ("docs/runners.md", include_str!("../../../docs/runners.md")),
    ("docs/security.md", include_str!("../../../docs/security.md")),
    ("docs/swarm.md", SWARM),
];
const GETTING_STARTED: &str = include_str!("../../../docs/getting-started.md");
const HIGH_AVAILABILITY: &str = include_str!("../../../docs/high-availability.md");
const HOW_TO: &str = include_str!("../../../docs/how-to.md");
const SWARM: &str = include_str!("../../../docs/swarm.md");
/// The key of the GitHub App in the documents.
const APP_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sidecar/src/github/test-app.pem");

/// The comment above a block says how it is tested.
#[derive(Debug, PartialEq)]
enum Tried {
    /// [`the_first_steps_are_as_they_are_written`] types it into this terminal.
    Terminal(u8),
    /// A test of this name covers it.
    By(String),
    Not(String),
}

/// A fenced block.
struct Block {
    language: &'static str,
    /// `None` without a comment.
    tried: Option<Tried>,
    text: String,
}

impl Block {
    /// Whether a comment must say how it is tested. Every configuration of edgerunner is checked.
    fn needs_comment(&self, document: &str) -> bool {
        match self.language {
            "sh" => true,
            "toml" => false,
            _ => [GETTING_STARTED, HOW_TO].contains(&document),
        }
    }
}

fn blocks(document: &'static str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some((indent, language)) = line.split_once("```") {
            let text = lines.by_ref().take_while(|line| line.trim() != "```");
            let text: Vec<_> = text.map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
            blocks.push(Block { language, tried: tried(before), text: text.join("\n") });
        }
        before = line;
    }
    blocks
}

fn tried(comment: &str) -> Option<Tried> {
    let text = comment.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim();
    let (kind, rest) = text.split_once(": ")?;
    match kind {
        "terminal" => rest.parse().ok().map(Tried::Terminal),
        "tried by" => Some(Tried::By(rest.to_owned())),
        "not tried" => Some(Tried::Not(rest.to_owned())),
        _ => None,
    }
}

/// The blocks of `docs/how-to.md` in this language that this test tries.
pub(crate) fn answers(test: &str, language: &str) -> Vec<String> {
    let tried = Some(Tried::By(test.to_owned()));
    let blocks = blocks(HOW_TO).into_iter();
    blocks
        .filter(|block| block.tried == tried && block.language == language)
        .map(|block| block.text)
        .collect()
}

/// The only one of [`answers`].
pub(crate) fn answer(test: &str, language: &str) -> Result<String> {
    let mut answers = answers(test, language);
    ensure!(answers.len() == 1, "{test} tries {} blocks of {language}", answers.len());
    answers.pop().context("no block")
}

/// The block of `docs/swarm.md` that begins like this.
pub(crate) fn swarm(beginning: &str) -> Result<String> {
    block_of(SWARM, beginning)
}

/// The block of `docs/high-availability.md` that begins like this.
pub(crate) fn high_availability(beginning: &str) -> Result<String> {
    block_of(HIGH_AVAILABILITY, beginning)
}

fn block_of(document: &'static str, beginning: &str) -> Result<String> {
    let found = blocks(document).into_iter().find(|block| block.text.starts_with(beginning));
    Ok(found.with_context(|| format!("no block begins with {beginning}"))?.text)
}

/// The source code of all tests.
fn tests(directory: &Path, found: &mut String) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            tests(&path, found)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_command_is_tried_or_says_why_not() -> Result<()> {
    let mut sources = String::new();
    for directory in ["tests", "../xtask/src", "../filter/tests", "../sidecar/tests"] {
        tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut sources)?;
    }
    for (name, text) in DOCUMENTS {
        for block in blocks(text) {
            let commands = &block.text;
            match &block.tried {
                None => ensure!(
                    !block.needs_comment(text),
                    "{name}: no comment says how this is tested:\n{commands}"
                ),
                Some(Tried::Terminal(_)) => ensure!(text == GETTING_STARTED, "{name}: {commands}"),
                Some(Tried::By(test)) => {
                    let found = sources.contains(&format!("fn {test}("));
                    ensure!(found, "{name}: there is no test {test}");
                }
                Some(Tried::Not(why)) => ensure!(why.contains(' '), "{name}: {commands}: {why}"),
            }
        }
    }
    Ok(())
}

#[test]
fn every_answer_is_tried_or_says_why_not() -> Result<()> {
    let (_, answers) = HOW_TO.split_once("\n## ").context("no answers")?;
    for answer in answers.split("\n## ") {
        let comments = answer.lines().filter_map(tried);
        ensure!(comments.count() > 0, "no comment says how this is tested:\n{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn every_configuration_in_the_documents_is_valid() -> Result<()> {
    for (name, text) in DOCUMENTS {
        for block in blocks(text).into_iter().filter(|block| block.language == "toml") {
            let directory = TempDir::new()?;
            let home = directory.path().display().to_string();
            let text = block.text.replace("/run/secrets", &home).replace("/etc/edgerunner", &home);
            let paths = text.split(['"', ':']).filter(|text| text.starts_with(&home));
            for path in paths.map(Path::new) {
                // The directory of an Engine's certificates; all others are files.
                if path.ends_with("docker") {
                    fs::create_dir_all(path)?;
                    fs::write(path.join("ca.pem"), Authority::new()?.certificate)?;
                    continue;
                }
                fs::create_dir_all(path.parent().context("no directory")?)?;
                let is_template = path.extension().is_some_and(|extension| extension == "yaml");
                fs::write(path, if is_template { "spec: {}" } else { "sesame" })?;
            }
            // The documents' own credential, or one that a reader has.
            let app = text.contains("app_id");
            let text = text.replace("app.private-key.pem", APP_KEY);
            let token = [("GITHUB_TOKEN", TOKEN)];
            let (output, printed) = check(&text, if app { &[] } else { &token }).await?;
            let valid = output.status.success() && !printed.contains("warning:");
            ensure!(valid, "{name}:\n{text}\n\n{printed}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_first_steps_are_as_they_are_written() -> Result<()> {
    DocsWalkthrough::run(async |walkthrough| {
        let mut terminal = walkthrough.terminal()?;
        let mut printed = String::new();
        let mut job = None;
        for Block { tried, text: commands, .. } in blocks(GETTING_STARTED) {
            match tried {
                Some(Tried::Terminal(1)) => {
                    if commands.contains("edgerunner doctor") {
                        walkthrough.ready().await?;
                    } else if commands.contains("edgerunner jobs") {
                        job = Some(walkthrough.a_job_is_done().await?);
                    }
                    // `read` reads what is typed next.
                    let secret = commands.contains("read -rs").then_some(TOKEN);
                    let typed = format!("{commands}\n{}", secret.unwrap_or_default());
                    printed += &terminal.type_in(&walkthrough.at_home(&typed)).await?;
                }
                Some(Tried::Terminal(_)) => walkthrough.start(&commands)?,
                Some(Tried::By(_) | Tried::Not(_)) | None => {}
            }
        }
        terminal.close().await?;
        walkthrough.secrets_stay_out_of_git()?;
        let job = job.context("the documents list no job")?.to_string();
        for expected in ["The configuration is valid", "sends to", &job, "success"] {
            ensure!(printed.contains(expected), "{expected} is not in\n{printed}");
        }
        Ok(())
    })
    .await
}
