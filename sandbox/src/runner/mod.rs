//! The stand-in runner: takes its configuration from the environment as the
//! real images do, runs one job, ends.

mod client;
mod config;
mod container;
mod hook;
mod limits;
mod work;

use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use client::{Client, ClientError};
pub use config::{Config, ConfigError};
pub use container::show;
use work::Work;

use crate::jitconfig::RunnerFile;
use crate::job::Conclusion;

const VERSION: &str = "2.335.0";
/// How long GitHub may be away before the runner gives up.
const AWAY_AT_MOST: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Client(#[from] ClientError),
}

/// What the runner did until it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// After its one job.
    JobDone,
    /// Asked to stop before it was done.
    Stopped,
    /// Its registration was removed; the real `run.sh` ends with 0 then, too.
    RegistrationDeleted,
}

/// Runs until the one job is done or `stop` is cancelled.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Ended, RunnerError> {
    let config = match config {
        Config::Jit(config) => config.0,
        Config::Register(registering) => {
            let encoded = patiently(&stop, || client::register(&registering)).await;
            match encoded {
                Some(encoded) => {
                    let config = config::decode(&encoded?)?.0;
                    println!("\n√ Runner successfully added\n√ Runner connection is good\n");
                    println!("√ Settings Saved.\n");
                    config
                }
                None => return Ok(Ended::Stopped),
            }
        }
    };
    let client = Client::new(&config);
    loop {
        let session = match patiently(&stop, || client.open(VERSION)).await {
            None => return Ok(Ended::Stopped),
            Some(Err(ClientError::Unauthorized(why))) => {
                println!("Failed to create a session. {why}");
                return Ok(Ended::RegistrationDeleted);
            }
            Some(session) => session?,
        };
        println!("\n√ Connected to GitHub\n");
        println!("Current runner version: '{VERSION}'");
        log("Listening for Jobs");
        match serve(&client, &config.runner, &session, &stop).await {
            Ok(Served::Job) if config.runner.ephemeral => return Ok(Ended::JobDone),
            // The session of a runner that stays ends here too, for simplicity
            // of both halves; the next one opens at once.
            Ok(Served::Job) => client.close(&session).await?,
            Ok(Served::Stopped) => {
                println!("Exiting...");
                client.close(&session).await?;
                return Ok(Ended::Stopped);
            }
            Err(ClientError::SessionEnded) => log("Runner connect error: the session has ended"),
            Err(ClientError::Unauthorized(why)) => {
                println!("{why}");
                return Ok(Ended::RegistrationDeleted);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

enum Served {
    Job,
    Stopped,
}

async fn serve(
    client: &Client,
    runner: &RunnerFile,
    session: &str,
    stop: &CancellationToken,
) -> Result<Served, ClientError> {
    loop {
        match patiently(stop, || client.job(session)).await {
            None => return Ok(Served::Stopped),
            Some(Ok(None)) => {}
            Some(Ok(Some(job))) => {
                log(&format!("Running job: {}", job.name));
                let work = Work { client, session, runner, job: &job };
                let conclusion = work.run(stop).await?;
                client.complete(session, job.job_id, conclusion).await?;
                log(&format!("Job {} completed with result: {}", job.name, result(conclusion)));
                return Ok(Served::Job);
            }
            Some(Err(error)) => return Err(error),
        }
    }
}

/// Tries again while GitHub is away; `None` once the runner must stop.
async fn patiently<T, F>(
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Option<Result<T, ClientError>>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let give_up = Instant::now() + AWAY_AT_MOST;
    let tries = async {
        loop {
            match attempt().await {
                Err(ClientError::Away(why)) if Instant::now() < give_up => {
                    log(&format!("Runner connect error: {why}. Retrying until reconnected."));
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                other => return other,
            }
        }
    };
    stop.run_until_cancelled(tries).await
}

fn log(line: &str) {
    println!("{}: {line}", Utc::now().format("%Y-%m-%d %H:%M:%SZ"));
}

fn result(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success | Conclusion::Neutral => "Succeeded",
        Conclusion::Cancelled => "Canceled",
        Conclusion::Skipped => "Skipped",
        Conclusion::Failure | Conclusion::TimedOut | Conclusion::ActionRequired => "Failed",
    }
}
