//! Scripts that run before and after a job, as documented at
//! <https://docs.github.com/en/actions/hosting-your-own-runners/managing-self-hosted-runners/running-scripts-before-or-after-a-job>.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::protocol::JobMessage;

/// A script that an environment variable may name.
#[derive(Clone, Copy)]
pub(super) enum JobScript {
    Started,
    Completed,
}

/// The values that a script finds in its environment.
pub(super) struct ScriptContext<'a> {
    pub(super) job: &'a JobMessage,
    pub(super) runner_name: &'a str,
    /// The working directory, which is created if it does not exist.
    pub(super) workspace: &'a Path,
}

impl JobScript {
    fn variable(self) -> &'static str {
        match self {
            Self::Started => "ACTIONS_RUNNER_HOOK_JOB_STARTED",
            Self::Completed => "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
        }
    }

    /// Runs the script, if its variable is set, and returns the lines of its output.
    pub(super) async fn run(self, context: &ScriptContext<'_>) -> Result<Vec<String>> {
        let variable = self.variable();
        let Ok(script) = std::env::var(variable) else { return Ok(Vec::new()) };
        ensure!(script.starts_with('/'), "{variable}={script}: the path must be absolute");
        ensure!(script.ends_with(".sh"), "{variable}={script}: only .sh scripts are supported");
        let workspace = context.workspace;
        std::fs::create_dir_all(workspace)
            .with_context(|| format!("cannot create {workspace:?}"))?;
        let output = match run_in("bash", &script, context).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                run_in("sh", &script, context).await
            }
            output => output,
        };
        let output = output.with_context(|| format!("cannot run {script}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "{script} failed with {}: {text}", output.status);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Sets the default variables that the sandbox knows values for.
async fn run_in(shell: &str, script: &str, context: &ScriptContext<'_>) -> std::io::Result<Output> {
    let ScriptContext { job, runner_name, workspace } = *context;
    Command::new(shell)
        .args(["-e", script])
        .current_dir(workspace)
        .env("CI", "true")
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_JOB", &job.name)
        .env("GITHUB_REPOSITORY", job.repository.to_string())
        .env("GITHUB_REPOSITORY_OWNER", &job.repository.owner)
        .env("GITHUB_RUN_ID", job.run_id.to_string())
        .env("GITHUB_RUN_NUMBER", job.run_number.to_string())
        .env("GITHUB_RUN_ATTEMPT", job.run_attempt.to_string())
        .env("GITHUB_WORKSPACE", workspace)
        .env("RUNNER_NAME", runner_name)
        .env("RUNNER_OS", "Linux")
        .stdin(Stdio::null())
        .output()
        .await
}
