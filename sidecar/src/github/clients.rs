//! The GitHub client of each credential, and the choice of one for a target.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Error, ErrorKind, GitHub,
    spending::{Outcome, Purpose, Spent},
};
use crate::{
    config::{Config, CredentialConfig, Identity},
    telemetry::metrics,
};
use edgerunner_scheduler::{
    missed::RateLimit,
    model::{Host, ServerTarget, Target, UnixMs},
    plan::{Credential, credential_for, credential_for_name, host_for_name},
};

pub(crate) struct Clients {
    credentials: Vec<Credential>,
    /// In the order of `credentials`.
    clients: Vec<CredentialClient>,
}

pub(crate) struct CredentialClient {
    pub github: GitHub,
    /// Where runners that register themselves find GitHub.
    pub web_url: String,
    pub missed: MissedBudgets,
}

/// Requests spent on recovering missed webhooks, by account.
#[derive(Default)]
pub(crate) struct MissedBudgets(Mutex<BTreeMap<String, MissedBudget>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissedBudget {
    /// Requests in an hour.
    pub allowed: u64,
    pub spent: u64,
    /// When the next request may be sent, if none is left.
    pub waits_until_ms: Option<UnixMs>,
}

/// One budget of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CredentialBudget {
    pub credential: String,
    /// Empty for a token, and for an App's own budget.
    pub account: String,
    pub budget: RateLimit,
    pub missed: Option<MissedBudget>,
}

impl MissedBudgets {
    pub(crate) fn set(&self, account: &str, budget: MissedBudget) {
        let mut budgets = self.locked();
        match budgets.get_mut(account) {
            Some(known) => *known = budget,
            None => drop(budgets.insert(account.to_owned(), budget)),
        }
    }

    fn get(&self, account: &str) -> Option<MissedBudget> {
        self.locked().get(account).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, MissedBudget>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    pub(crate) fn new(credentials: &[CredentialConfig], timeout: Duration) -> Result<Self, Error> {
        let clients = credentials.iter().map(|credential| {
            for purpose in Purpose::ALL {
                for outcome in Outcome::ALL {
                    let (purpose, outcome) = (purpose.as_str(), outcome.as_str());
                    metrics::github_budget_spent(&credential.name, purpose, outcome, 0);
                }
            }
            Ok(CredentialClient {
                github: GitHub::new(credential, timeout)?,
                web_url: credential.web_url.clone(),
                missed: MissedBudgets::default(),
            })
        });
        let clients = clients.collect::<Result<_, Error>>()?;
        let credentials = credentials.iter().map(CredentialConfig::planner_credential).collect();
        Ok(Self { credentials, clients })
    }

    /// The client of the first credential that serves a target.
    pub(crate) fn for_target(&self, target: &ServerTarget) -> Result<&CredentialClient, Error> {
        let index = credential_for(&self.credentials, target);
        index.map(|index| &self.clients[index]).ok_or_else(|| no_credential(&target.target))
    }

    /// The target on this server, or else on the one where an earlier version, which did not
    /// record the server, registered its runners.
    pub(crate) fn on_server(&self, target: Target, host: Host) -> ServerTarget {
        let host = host.or(host_for_name(&self.credentials, &target));
        target.on(host)
    }

    /// The client of the credential with this index.
    pub(crate) fn by_index(&self, index: usize) -> &CredentialClient {
        &self.clients[index]
    }

    pub(crate) fn budgets(&self) -> Vec<CredentialBudget> {
        let clients = self.credentials.iter().zip(&self.clients);
        clients
            .flat_map(|(credential, client)| {
                client.github.budgets().into_iter().map(|(account, budget)| CredentialBudget {
                    credential: credential.name.clone(),
                    missed: client.missed.get(&account),
                    account,
                    budget,
                })
            })
            .collect()
    }
}

impl Clients {
    /// What each credential's requests of the last hour were for.
    pub(crate) fn spent(&self) -> Vec<(String, Vec<Spent>)> {
        let clients = self.credentials.iter().zip(&self.clients);
        clients.map(|(it, client)| (it.name.clone(), client.github.spent())).collect()
    }
}

/// The client for one target, for commands that need no other.
pub(crate) fn client_for(config: &Config, target: &Target) -> Result<GitHub, Error> {
    let index = credential_for_name(&config.planner_credentials(), target);
    let index = index.ok_or_else(|| no_credential(target))?;
    GitHub::new(&config.credentials[index], config.github.timeout())
}

/// A client that authenticates as a GitHub App.
pub(crate) fn app_client(config: &Config) -> Result<GitHub, Error> {
    let is_app = |it: &&CredentialConfig| matches!(it.identity, Identity::App { .. });
    let app = config.credentials.iter().find(is_app).ok_or_else(|| Error {
        kind: ErrorKind::Forbidden,
        retry_after: None,
        message: "no credential is a GitHub App: set github.app_id and its private key".to_owned(),
    })?;
    GitHub::new(app, config.github.timeout())
}

fn no_credential(target: &Target) -> Error {
    let message = format!(
        "no credential serves {target}: set GITHUB_TOKEN, or add it to the targets of \
         [[credentials]]"
    );
    Error { kind: ErrorKind::Forbidden, retry_after: None, message }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use edgerunner_scheduler::plan::TargetPattern;

    #[tokio::test]
    async fn each_target_is_reached_with_its_own_credential() {
        const FIRST: &str = "https://first.example.com";
        const SECOND: &str = "https://second.example.com";
        let credential = |targets: &[&str], web_url: &str| CredentialConfig {
            name: "one".into(),
            targets: targets.iter().map(|it| TargetPattern::parse(it).unwrap()).collect(),
            api_url: "http://127.0.0.1:9".into(),
            web_url: web_url.into(),
            identity: Identity::Token(SecretString::from("token").into()),
            ca: Vec::new(),
            proxy: None,
        };
        let credentials = [credential(&["acme/*"], FIRST), credential(&["acme/*", "acme"], SECOND)];
        let clients = Clients::new(&credentials, Duration::from_secs(1)).unwrap();
        let (first, second) = (Host::new("first.example.com"), Host::new("second.example.com"));
        let client =
            |target: &str, host| clients.for_target(&target.parse::<Target>().unwrap().on(host));
        let unknown = Host::default();
        assert_eq!(client("repo:acme/app", unknown).unwrap().web_url, FIRST);
        assert_eq!(client("org:acme", unknown).unwrap().web_url, SECOND);
        // Another server may have a repository of the same name.
        assert_eq!(client("repo:acme/app", first).unwrap().web_url, FIRST);
        assert_eq!(client("repo:acme/app", second).unwrap().web_url, SECOND);
        assert!(client("org:acme", first).is_err());
        assert!(client("repo:acme/app", Host::new("third.example.com")).is_err());
        let error = client("org:other", unknown).err().unwrap();
        let expected = "no credential serves org:other: set GITHUB_TOKEN, or add it to the targets of \
                        [[credentials]]";
        assert_eq!(error.to_string(), expected);
    }
}
