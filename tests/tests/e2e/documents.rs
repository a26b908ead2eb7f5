//! The commands in the documents: each is tested, or a comment says why not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::TOKEN;

use crate::docs_walkthrough::DocsWalkthrough;

const DOCUMENTS: [(&str, &str); 7] = [
    ("CONTRIBUTING.md", include_str!("../../../CONTRIBUTING.md")),
    ("README.md", include_str!("../../../README.md")),
    ("docs/deployment.md", include_str!("../../../docs/deployment.md")),
    ("docs/development.md", include_str!("../../../docs/development.md")),
    ("docs/getting-started.md", GETTING_STARTED),
    ("docs/operations.md", include_str!("../../../docs/operations.md")),
    ("docs/security.md", include_str!("../../../docs/security.md")),
];
const GETTING_STARTED: &str = include_str!("../../../docs/getting-started.md");

/// The comment above a block says how it is tested.
#[derive(Debug, PartialEq)]
enum Tried {
    /// [`the_first_steps_are_as_they_are_written`] types it into this terminal.
    Terminal(u8),
    /// A test of this name covers it.
    By(String),
    Not(String),
}

struct Block {
    tried: Tried,
    commands: String,
}

fn blocks(document: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```sh" {
            let commands = lines.by_ref().take_while(|line| line.trim() != "```");
            let commands = commands.collect::<Vec<_>>().join("\n");
            let tried = tried(before)
                .with_context(|| format!("no comment says how this is tested:\n{commands}"))?;
            blocks.push(Block { tried, commands });
        }
        before = line;
    }
    Ok(blocks)
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
    for directory in ["tests", "../xtask/src", "../filter/tests"] {
        tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut sources)?;
    }
    for (name, text) in DOCUMENTS {
        for Block { tried, commands } in blocks(text).context(name)? {
            match tried {
                Tried::Terminal(_) => ensure!(text == GETTING_STARTED, "{name}: {commands}"),
                Tried::By(test) => {
                    let found = sources.contains(&format!("fn {test}("));
                    ensure!(found, "{name}: there is no test {test}");
                }
                Tried::Not(why) => ensure!(why.contains(' '), "{name}: {commands}: {why}"),
            }
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
        for Block { tried, commands } in blocks(GETTING_STARTED)? {
            match tried {
                Tried::Terminal(1) => {
                    if commands.contains("edgerunner doctor") {
                        walkthrough.ready().await?;
                    } else if commands.contains("edgerunner jobs") {
                        job = Some(walkthrough.a_job_is_done().await?);
                    }
                    // `read` reads what is typed next.
                    let secret = commands.contains("read -rs").then_some(TOKEN);
                    let typed = format!("{commands}\n{}", secret.unwrap_or_default());
                    printed += &terminal.type_in(&typed).await?;
                }
                Tried::Terminal(_) => walkthrough.start(&commands)?,
                Tried::By(_) | Tried::Not(_) => {}
            }
        }
        terminal.close().await?;
        walkthrough.created_files_are_ignored()?;
        let job = job.context("the documents list no job")?.to_string();
        for expected in ["The configuration is valid", "sends to", &job, "completed"] {
            ensure!(printed.contains(expected), "{expected} is not in\n{printed}");
        }
        Ok(())
    })
    .await
}
