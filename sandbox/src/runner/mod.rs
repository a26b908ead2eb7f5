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
pub use container::{serve_message, take_memory};
use job_run::{JobRun, cancellation};
use retry::with_retries;

use crate::jit_config::RunnerFile;
use crate::job::Conclusion;
use crate::protocol::{JobReference, MessageType};

pub(crate) const VERSION: &str = "2.335.0";

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
    /// GitHub no longer accepts its version.
    VersionTooOld,
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
    let client = Client::new(&config, VERSION);
    loop {
        let session = match with_retries(&stop, || client.open()).await {
            None => return Ok(EndReason::Stopped),
            Some(Err(ClientError::NotRegistered(message))) => {
                println!("Failed to create a session. {message}");
                return Ok(EndReason::RegistrationDeleted);
            }
            Some(Err(ClientError::VersionTooOld(message))) => {
                println!("An error occurred: {message}");
                return Ok(EndReason::VersionTooOld);
            }
            Some(session) => session?,
        };
        println!("\n√ Connected to GitHub\n");
        println!("Current runner version: '{VERSION}'");
        log("Listening for Jobs");
        match run_next_job(&client, &config.runner, &session, &stop).await {
            Ok(JobOutcome::Done) if config.runner.is_ephemeral() => return Ok(EndReason::JobDone),
            // Other runners open another session for their next job.
            Ok(JobOutcome::Done) => client.close().await?,
            Ok(JobOutcome::Stopped) => {
                println!("Exiting...");
                client.close().await?;
                return Ok(EndReason::Stopped);
            }
            Err(ClientError::SessionEnded) => log("Runner connect error: the session has ended"),
            Err(ClientError::NotRegistered(message)) => {
                println!("{message} Cleaning up local configuration.");
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
    client: &Client<'_>,
    runner: &RunnerFile,
    session: &str,
    stop: &CancellationToken,
) -> Result<JobOutcome, ClientError> {
    loop {
        let message = match with_retries(stop, || client.message(session, false)).await {
            None => return Ok(JobOutcome::Stopped),
            Some(message) => message?,
        };
        let Some(message) = message.filter(|it| it.message_type == MessageType::RunnerJobRequest)
        else {
            continue;
        };
        let reference: JobReference = serde_json::from_str(&message.body)
            .map_err(|error| ClientError::Rejected(error.to_string()))?;
        match run_job(client, runner, session, stop, reference).await {
            Err(ClientError::JobNotFound(message)) => log(&format!("Skipping the job: {message}")),
            ended => return ended,
        }
    }
}

async fn run_job(
    client: &Client<'_>,
    runner: &RunnerFile,
    session: &str,
    stop: &CancellationToken,
    reference: JobReference,
) -> Result<JobOutcome, ClientError> {
    if reference.should_acknowledge {
        client.acknowledge(session, &reference).await?;
    }
    let cancelled = cancellation(client, session, stop);
    tokio::pin!(cancelled);
    let acquired = tokio::select! {
        biased;
        // GitHub cancels no job that has not started.
        stopped = &mut cancelled => return stopped.map(|()| JobOutcome::Stopped),
        acquired = client.acquire(reference) => acquired?,
    };
    let job = &acquired.job;
    log(&format!("Running job: {}", job.name));
    let conclusion = JobRun { client, runner, acquired: &acquired }.run(cancelled).await?;
    client.complete(&acquired, conclusion).await?;
    log(&format!("Job {} completed with result: {}", job.name, result(conclusion)));
    Ok(JobOutcome::Done)
}

fn result(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success | Conclusion::Neutral => "Succeeded",
        Conclusion::Cancelled => "Canceled",
        Conclusion::Skipped => "Skipped",
        Conclusion::Failure | Conclusion::TimedOut | Conclusion::ActionRequired => "Failed",
    }
}
