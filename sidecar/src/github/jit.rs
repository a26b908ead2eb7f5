//! Just-in-time configurations: GitHub registers a runner for one job.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Error, ErrorKind, GitHub, RunnerRemoval, client::json, path};
use crate::config::RunnerGroup;
use edgerunner_scheduler::model::Target;

/// How long a runner can connect with its configuration. GitHub does not send it.
pub(crate) const JIT_LIFE: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug)]
pub(crate) struct NewRunner {
    pub name: String,
    /// All of them: GitHub adds none here, not even `self-hosted`.
    pub labels: Vec<String>,
    pub group: RunnerGroup,
    pub work_folder: String,
}

#[derive(Clone, Debug)]
pub(crate) struct JitRunner {
    pub id: u64,
    pub encoded_jit_config: SecretString,
}

impl GitHub {
    /// Registers a runner for one job. After an error without a response, a runner of this name
    /// may be registered anyway.
    pub(crate) async fn jit_config(
        &self,
        target: &Target,
        runner: &NewRunner,
    ) -> Result<JitRunner, Error> {
        match self.register(target, runner).await {
            Err(taken) if taken.kind == ErrorKind::NameTaken => {
                self.free_name(target, &runner.name, taken).await?;
                self.register(target, runner).await
            }
            result => result,
        }
    }

    /// Names are never reused, so a runner that already has this one is a registration whose
    /// response was lost, unless it is online.
    async fn free_name(&self, target: &Target, name: &str, taken: Error) -> Result<(), Error> {
        match self.runner_named(target, name).await? {
            Some(runner) if runner.online || runner.busy => Err(taken),
            Some(runner) => match self.remove_runner(target, runner.id).await? {
                RunnerRemoval::Busy => Err(taken),
                RunnerRemoval::Removed | RunnerRemoval::NotFound => Ok(()),
            },
            None => Ok(()),
        }
    }

    async fn register(&self, target: &Target, runner: &NewRunner) -> Result<JitRunner, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            name: &'a str,
            labels: &'a [String],
            runner_group_id: u64,
            work_folder: &'a str,
        }
        #[derive(Deserialize)]
        struct Reply {
            runner: Registered,
            encoded_jit_config: SecretString,
        }
        #[derive(Deserialize)]
        struct Registered {
            id: u64,
        }
        let NewRunner { name, labels, group, work_folder } = runner;
        let (runner_group_id, in_group) = match group {
            RunnerGroup::Id(id) => (*id, String::new()),
            RunnerGroup::Name(group) => {
                (self.group_id(target, group).await?, format!(" in group {group}"))
            }
        };
        let call = format!("registering runner {name} at {target}{in_group}");
        let path = format!("{}/generate-jitconfig", path::runners(target));
        let body = json(&call, &Request { name, labels, runner_group_id, work_folder })?;
        let response = self.send(&call, Method::POST, &path, Some(body), target).await?;
        let mut reply = self.client.read(&call, &response, StatusCode::CREATED);
        if let (Err(error), RunnerGroup::Name(group)) = (&mut reply, group)
            && matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::Invalid)
        {
            self.forget_group(target, group);
            // The target itself was just seen: it is about the group.
            error.kind = ErrorKind::Invalid;
        }
        let Reply { runner, encoded_jit_config } = reply?;
        Ok(JitRunner { id: runner.id, encoded_jit_config })
    }
}
