//! Commands that another sidecar passes on to the one that plans, and their replies, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::control::command::{Answer, Command, CommandSender};
use edgerunner_scheduler::model::{Host, JobKey};

/// Its reply is the command's own result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Snapshot,
    Queued { jobs: Vec<Key> },
    Drain { pool: Option<String>, draining: bool },
    Retry,
    RemoveRunner { runner: String, force: bool },
}

/// A job's key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    id: u64,
    run_attempt: u32,
    host: String,
}

impl Request {
    pub(crate) fn queued(jobs: &[JobKey]) -> Self {
        let key = |JobKey { id, run_attempt, host }: &JobKey| Key {
            id: *id,
            run_attempt: *run_attempt,
            host: host.to_string(),
        };
        Self::Queued { jobs: jobs.iter().map(key).collect() }
    }

    /// Returns the reply; `None` if the driver has ended.
    pub(crate) async fn carry_out(self, commands: &CommandSender) -> Option<Value> {
        match self {
            Self::Snapshot => send(commands, Command::GetSnapshot).await,
            Self::Queued { jobs } => {
                let key = |Key { id, run_attempt, host }: Key| JobKey {
                    id,
                    run_attempt,
                    host: Host::new(&host),
                };
                let jobs = jobs.into_iter().map(key).collect();
                send(commands, |reply| Command::GetQueued { jobs, reply }).await
            }
            Self::Drain { pool, draining } => {
                send(commands, |reply| Command::Drain { pool, draining, reply }).await
            }
            Self::Retry => send(commands, |reply| Command::Retry { reply }).await,
            Self::RemoveRunner { runner, force } => {
                send(commands, |reply| Command::RemoveRunner { runner, force, reply }).await
            }
        }
    }
}

async fn send<T: Serialize>(
    commands: &CommandSender,
    command: impl FnOnce(Answer<T>) -> Command,
) -> Option<Value> {
    let (reply, response) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    serde_json::to_value(response.await.ok()?).ok()
}
