//! The life of a registration: made, online while it has a session, removed.

use std::time::{Duration, Instant};

use chrono::Utc;

use crate::jitconfig::{CredentialsData, CredentialsFile, JitConfig, RsaParamsFile, RunnerFile};
use crate::job::Conclusion;
use crate::registration::{Credentials, RegistrationToken, Runner, Session, TokenPurpose};
use crate::scope::Scope;
use crate::state::State;

pub(crate) struct NewRunner {
    pub scope: Scope,
    pub name: String,
    pub group_id: u64,
    pub labels: Vec<String>,
    pub ephemeral: bool,
    pub work_folder: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("Already exists - A runner with the name {0} already exists.")]
    NameTaken(String),
    #[error("runner group {0} does not exist")]
    UnknownGroup(u64),
    #[error("the configuration could not be written: {0}")]
    Encoding(#[from] serde_json::Error),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    #[error("runner not found")]
    Unknown,
    /// The wording is GitHub's; clients look for it.
    #[error("Bad request - Runner \"{0}\" is still running a job\"")]
    Busy(String),
}

impl State {
    /// The new runner's id and its configuration.
    pub(crate) fn register(&mut self, new: NewRunner) -> Result<(u64, String), RegisterError> {
        let group = self
            .settings
            .runner_groups
            .iter()
            .find(|group| group.id == new.group_id)
            .cloned()
            .ok_or(RegisterError::UnknownGroup(new.group_id))?;
        if self
            .runners
            .values()
            .any(|runner| runner.scope == new.scope && runner.name.eq_ignore_ascii_case(&new.name))
        {
            return Err(RegisterError::NameTaken(new.name));
        }
        let id = self.next_runner_id();
        let config = JitConfig {
            runner: RunnerFile {
                agent_id: id,
                agent_name: new.name.clone(),
                pool_id: group.id,
                pool_name: group.name.clone(),
                disable_update: true,
                ephemeral: new.ephemeral,
                server_url: self.urls.origin().to_owned(),
                git_hub_url: self.urls.to(&new.scope.page()),
                work_folder: new.work_folder,
            },
            credentials: CredentialsFile {
                scheme: "OAuth".to_owned(),
                data: CredentialsData {
                    client_id: uuid::Uuid::new_v4().to_string(),
                    authorization_url: self.urls.to("_sandbox/runner"),
                    require_fips_cryptography: "True".to_owned(),
                },
            },
            rsa: RsaParamsFile::generate(),
        };
        let encoded = config.encode()?;
        let mut labels: Vec<String> = Vec::new();
        for label in new.labels {
            let label = label.to_lowercase();
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        self.runners.insert(
            id,
            Runner {
                id,
                name: new.name,
                scope: new.scope,
                group_id: group.id,
                group_name: group.name,
                labels,
                ephemeral: new.ephemeral,
                os: "unknown".to_owned(),
                version: None,
                job_id: None,
                credentials: Credentials {
                    client_id: config.credentials.data.client_id,
                    secret: config.rsa.d,
                },
                session: None,
            },
        );
        Ok((id, encoded))
    }

    pub(crate) fn remove_runner(&mut self, scope: &Scope, id: u64) -> Result<(), RemoveError> {
        match self.runners.get(&id) {
            Some(runner) if runner.scope == *scope => {
                if runner.busy() {
                    return Err(RemoveError::Busy(runner.name.clone()));
                }
                self.runners.remove(&id);
                Ok(())
            }
            _ => Err(RemoveError::Unknown),
        }
    }

    pub(crate) fn issue_token(&mut self, scope: Scope, purpose: TokenPurpose) -> RegistrationToken {
        let now = Utc::now();
        self.tokens.retain(|token| token.expires_at > now);
        let token = RegistrationToken {
            token: std::iter::repeat_with(|| fastrand::char('A'..='Z')).take(29).collect(),
            scope,
            purpose,
            expires_at: now + chrono::Duration::hours(1),
        };
        self.tokens.push(token.clone());
        token
    }

    /// Sessions that were not renewed end; a job such a runner had has failed.
    pub(crate) fn end_lapsed_sessions(&mut self, now: Instant) {
        let after = self.settings.runner_lost_after;
        let lapsed: Vec<u64> = self
            .runners
            .values()
            .filter(|runner| {
                runner
                    .session
                    .as_ref()
                    .is_some_and(|session| session.lapses_at(after).is_some_and(|at| at <= now))
            })
            .map(|runner| runner.id)
            .collect();
        for id in lapsed {
            self.end_session(id);
        }
    }

    pub(crate) fn end_session(&mut self, runner_id: u64) {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return;
        };
        runner.session = None;
        let Some(job) = runner.job_id.and_then(|id| self.jobs.get(&id)) else {
            return;
        };
        let conclusion = match job.cancel_requested {
            true => Conclusion::Cancelled,
            false => Conclusion::Failure,
        };
        tracing::warn!(runner = runner_id, job = job.id, "the runner is lost, its job ends");
        self.finish(runner_id, conclusion);
    }

    pub(crate) fn next_lapse(&self) -> Option<Instant> {
        let after = self.settings.runner_lost_after;
        self.runners.values().filter_map(|runner| runner.session.as_ref()?.lapses_at(after)).min()
    }
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { id: uuid::Uuid::new_v4().to_string(), last_seen: Instant::now(), held: 0 }
    }

    fn lapses_at(&self, after: Duration) -> Option<Instant> {
        (self.held == 0).then(|| self.last_seen + after)
    }
}
