//! Docker Compose, for the test of `packaging/compose.yaml`.

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;

/// As a plug-in of `docker`, and as a program of its own.
const FORMS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];

/// The words that run it. Finds it, or else installs it.
pub(crate) async fn get(stop: &Stop) -> Result<String> {
    let mut step = Step::start("Docker Compose");
    if let Some((words, version)) = find().await {
        step.done(&version);
        return Ok(words);
    }
    apt::install(stop, &mut step, &["docker-compose"], "Docker Compose").await?;
    let Some((words, version)) = find().await else {
        bail!("docker-compose is installed, yet it does not run");
    };
    step.done(&version);
    Ok(words)
}

async fn find() -> Option<(String, String)> {
    for form in FORMS {
        let mut words = form.iter();
        let mut version = Command::new(words.next()?);
        version.args(words).args(["version", "--short"]);
        if let Some(version) = command::answer(version).await {
            return Some((form.join(" "), version.trim().to_owned()));
        }
    }
    None
}
