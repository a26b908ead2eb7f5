//! Scripts around a job, as GitHub's documentation has it:
//! <https://docs.github.com/en/actions/hosting-your-own-runners/managing-self-hosted-runners/running-scripts-before-or-after-a-job>

use std::io::ErrorKind;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::work::Work;

pub(super) const STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";
pub(super) const COMPLETED: &str = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED";

/// The lines it wrote; none if no script is set.
pub(super) async fn run(variable: &str, work: &Work<'_>) -> Result<Vec<String>> {
    let Ok(script) = std::env::var(variable) else { return Ok(Vec::new()) };
    ensure!(script.starts_with('/'), "{variable}={script}: it must be an absolute path");
    ensure!(script.ends_with(".sh"), "{variable}={script}: only .sh is run here");
    let folder = work.folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder:?}"))?;
    let output = match shell("bash", &script, work).await {
        Err(error) if error.kind() == ErrorKind::NotFound => shell("sh", &script, work).await,
        output => output,
    };
    let output = output.with_context(|| format!("cannot run {script}"))?;
    let written = [output.stdout, output.stderr].concat();
    let written = String::from_utf8_lossy(&written).into_owned();
    ensure!(output.status.success(), "{script} ended with {}: {written}", output.status);
    Ok(written.lines().map(str::to_owned).collect())
}

/// With GitHub's default variables, as far as the sandbox knows them.
async fn shell(shell: &str, script: &str, work: &Work<'_>) -> std::io::Result<Output> {
    let (job, folder) = (work.job, work.folder());
    Command::new(shell)
        .args(["-e", script])
        .current_dir(&folder)
        .env("CI", "true")
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_JOB", &job.name)
        .env("GITHUB_REPOSITORY", job.repository.to_string())
        .env("GITHUB_REPOSITORY_OWNER", &job.repository.owner)
        .env("GITHUB_RUN_ID", job.run_id.to_string())
        .env("GITHUB_RUN_NUMBER", job.run_number.to_string())
        .env("GITHUB_RUN_ATTEMPT", job.run_attempt.to_string())
        .env("GITHUB_WORKSPACE", &folder)
        .env("RUNNER_NAME", &work.runner.agent_name)
        .env("RUNNER_OS", "Linux")
        .stdin(Stdio::null())
        .output()
        .await
}
