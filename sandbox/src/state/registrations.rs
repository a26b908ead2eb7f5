//! The lifecycle of a registration: created, online while it has a session, removed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::State;
use crate::jit_config::{CredentialsData, CredentialsFile, JitConfig, RunnerFile, truth};
use crate::job::Conclusion;
use crate::keys::key_for;
use crate::registration::{Credentials, RegistrationToken, Runner, RunnerToken, TokenPurpose};
use crate::runner_groups::RUNNER_GROUPS;
use crate::runner_service::{authorization_url, broker_url};
use crate::scope::Scope;

/// The lifetime of a runner's access token.
pub(crate) const RUNNER_TOKEN_LIFETIME: Duration = Duration::from_secs(3_000);

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
    #[error("failed to encode the configuration: {0}")]
    Encoding(#[from] serde_json::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("runner not found")]
    Unknown,
    /// GitHub's wording, which clients search for.
    #[error("Bad request - Runner \"{0}\" is still running a job\"")]
    Busy(String),
}

impl State {
    /// Registers a runner, and returns its id and its encoded just-in-time configuration.
    pub(crate) fn register(&mut self, new: NewRunner) -> Result<(u64, String), RegisterError> {
        let group = RUNNER_GROUPS
            .iter()
            .find(|group| group.id == new.group_id)
            .ok_or(RegisterError::UnknownGroup(new.group_id))?;
        if self
            .runners
            .values()
            .any(|runner| runner.scope == new.scope && runner.name.eq_ignore_ascii_case(&new.name))
        {
            return Err(RegisterError::NameTaken(new.name));
        }
        let id = self.ids.runner();
        let config = JitConfig {
            runner: RunnerFile {
                agent_id: id.to_string(),
                agent_name: new.name.clone(),
                pool_id: group.id.to_string(),
                pool_name: group.name.to_owned(),
                disable_update: truth(true),
                ephemeral: truth(new.ephemeral),
                // There is no service of the older protocol.
                server_url: broker_url(&self.urls),
                server_url_v2: broker_url(&self.urls),
                use_v2_flow: true,
                git_hub_url: self.urls.to(&new.scope.page()),
                work_folder: new.work_folder,
            },
            credentials: CredentialsFile {
                scheme: "OAuth".to_owned(),
                data: CredentialsData {
                    client_id: uuid::Uuid::new_v4().to_string(),
                    authorization_url: authorization_url(&self.urls),
                    require_fips_cryptography: truth(true),
                },
            },
            rsa: key_for(id).clone(),
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
                group_name: group.name.to_owned(),
                labels,
                ephemeral: new.ephemeral,
                os: "unknown".to_owned(),
                version: None,
                job_id: None,
                offered_job_id: None,
                credentials: Credentials {
                    client_id: config.credentials.data.client_id,
                    key: key_for(id),
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
                self.withdraw_job(id);
                self.runners.remove(&id);
                Ok(())
            }
            _ => Err(RemoveError::Unknown),
        }
    }

    /// Removes a runner's registration, wherever it is. An idle runner exits.
    pub(crate) fn unregister(&mut self, id: u64) -> Result<(), RemoveError> {
        let scope = self.runners.get(&id).ok_or(RemoveError::Unknown)?.scope.clone();
        self.remove_runner(&scope, id)
    }

    pub(crate) fn issue_token(&mut self, scope: Scope, purpose: TokenPurpose) -> RegistrationToken {
        let now = Timestamp::now();
        self.registration_tokens.retain(|token| token.expires_at > now);
        let token = RegistrationToken {
            token: std::iter::repeat_with(|| fastrand::char('A'..='Z')).take(29).collect(),
            scope,
            purpose,
            expires_at: now + SignedDuration::from_hours(1),
        };
        self.registration_tokens.push(token.clone());
        token
    }

    /// A new access token for the runner or its job.
    pub(crate) fn issue_runner_token(&mut self, runner: u64) -> String {
        let now = Timestamp::now();
        self.runner_tokens.retain(|_, token| token.expires_at > now);
        let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(64).collect();
        let expires_at = now + RUNNER_TOKEN_LIFETIME;
        self.runner_tokens.insert(token.clone(), RunnerToken { runner, expires_at });
        token
    }

    /// Ends the sessions that have expired; jobs of their runners fail.
    pub(crate) fn end_expired_sessions(&mut self, now: Instant) {
        let after = self.settings.runner_lost_after;
        let expired: Vec<u64> =
            self.runners
                .values()
                .filter(|runner| {
                    runner.session.as_ref().is_some_and(|session| {
                        session.expires_at(after).is_some_and(|at| at <= now)
                    })
                })
                .map(|runner| runner.id)
                .collect();
        for id in expired {
            self.end_session(id);
        }
    }

    /// Whether no other process has used this configuration, which a runner for one job is
    /// started with once. Counts refusals.
    pub(crate) fn may_use(&mut self, client: &str, process: &str) -> bool {
        let may = self.configuration_users.get(client).is_none_or(|user| user == process);
        self.jit_reuses += usize::from(!may);
        may
    }

    /// Forgets who used the configurations of runners that are gone.
    pub(crate) fn forget_configurations(&mut self) {
        let runners = self.runners.values();
        let known: HashSet<&String> = runners.map(|it| &it.credentials.client_id).collect();
        self.configuration_users.retain(|client, _| known.contains(client));
    }

    pub(crate) fn end_session(&mut self, runner_id: u64) {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return;
        };
        runner.session = None;
        self.withdraw_job(runner_id);
        let Some(runner) = self.runners.get(&runner_id) else {
            return;
        };
        let Some(job) = runner.job_id.and_then(|id| self.jobs.get(&id)) else {
            return;
        };
        let conclusion = match job.cancel_requested {
            true => Conclusion::Cancelled,
            false => Conclusion::Failure,
        };
        tracing::warn!(
            runner = runner_id,
            job = job.id,
            "lost contact with the runner; ending its job"
        );
        self.finish_job(runner_id, conclusion);
    }

    /// When the next session expires unless it is renewed.
    pub(crate) fn next_session_expiry(&self) -> Option<Instant> {
        let after = self.settings.runner_lost_after;
        self.runners.values().filter_map(|runner| runner.session.as_ref()?.expires_at(after)).min()
    }
}
