//! The stand-in runner: reads its configuration from the environment, as the real images do, and
//! runs one job.

mod client;
mod config;
mod console;
mod container;
mod job_run;
mod job_script;
mod limits;
mod retry;

use tokio_util::sync::CancellationToken;

use client::{Client, ClientError};
pub use config::{Config, ConfigError};
use console::log;
pub use container::serve_message;
use job_run::JobRun;
use retry::with_retries;

use crate::jit_config::RunnerFile;
use crate::job::Conclusion;

const VERSION: &str = "2.335.0";

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Client(#[from] ClientError),
}

/// Why the runner ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndReason {
    /// It has run its one job.
    JobDone,
    /// `stop` was cancelled before that.
    Stopped,
    /// Its registration was removed. The real `run.sh` also exits with 0 then.
    RegistrationDeleted,
}

/// Runs until the runner's one job is done or `stop` is cancelled.
pub async fn run(config: Config, stop: CancellationToken) -> Result<EndReason, RunnerError> {
    let config = match config {
        Config::Jit(config) => config.0,
        Config::Register(registration) => {
            let encoded = with_retries(&stop, || client::register(&registration)).await;
            match encoded {
                Some(encoded) => {
                    let config = config::decode(&encoded?)?.0;
                    println!("\n√ Runner successfully added\n√ Runner connection is good\n");
                    println!("√ Settings Saved.\n");
                    config
                }
                None => return Ok(EndReason::Stopped),
            }
        }
    };
    let client = Client::new(&config);
    loop {
        let session = match with_retries(&stop, || client.open(VERSION)).await {
            None => return Ok(EndReason::Stopped),
            Some(Err(ClientError::Unauthorized(message))) => {
                println!("Failed to create a session. {message}");
                return Ok(EndReason::RegistrationDeleted);
            }
            Some(session) => session?,
        };
        println!("\n√ Connected to GitHub\n");
        println!("Current runner version: '{VERSION}'");
        log("Listening for Jobs");
        match run_next_job(&client, &config.runner, &session, &stop).await {
            Ok(JobOutcome::Done) if config.runner.ephemeral => return Ok(EndReason::JobDone),
            // Other runners open another session for their next job.
            Ok(JobOutcome::Done) => client.close(&session).await?,
            Ok(JobOutcome::Stopped) => {
                println!("Exiting...");
                client.close(&session).await?;
                return Ok(EndReason::Stopped);
            }
            Err(ClientError::SessionEnded) => log("Runner connect error: the session has ended"),
            Err(ClientError::Unauthorized(message)) => {
                println!("{message}");
                return Ok(EndReason::RegistrationDeleted);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

enum JobOutcome {
    Done,
    /// The runner had to stop while it waited for a job.
    Stopped,
}

async fn run_next_job(
    client: &Client,
    runner: &RunnerFile,
    session: &str,
    stop: &CancellationToken,
) -> Result<JobOutcome, ClientError> {
    loop {
        match with_retries(stop, || client.job(session)).await {
            None => return Ok(JobOutcome::Stopped),
            Some(Ok(None)) => {}
            Some(Ok(Some(job))) => {
                log(&format!("Running job: {}", job.name));
                let conclusion = JobRun { client, session, runner, job: &job }.run(stop).await?;
                client.complete(session, job.job_id, conclusion).await?;
                log(&format!("Job {} completed with result: {}", job.name, result(conclusion)));
                return Ok(JobOutcome::Done);
            }
            Some(Err(error)) => return Err(error),
        }
    }
}

fn result(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success | Conclusion::Neutral => "Succeeded",
        Conclusion::Cancelled => "Canceled",
        Conclusion::Skipped => "Skipped",
        Conclusion::Failure | Conclusion::TimedOut | Conclusion::ActionRequired => "Failed",
    }
}
