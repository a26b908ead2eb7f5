//! The GitHub client of each credential, and the choice of one for a target.
//!
//! The planner chooses the credential of a launch. Every other call about a target uses the one
//! that has the most left. If GitHub refuses it, the others that serve the target are tried.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Error, ErrorKind, GitHub,
    refused_webhooks::{RefusedWebhook, RefusedWebhooks},
    spending::{Outcome, Purpose, Spent},
};
use crate::{
    config::{Config, CredentialConfig, Identity},
    telemetry::metrics,
};
use edgerunner_scheduler::{
    missed::RateLimit,
    model::{Host, ServerTarget, Target, UnixMs},
    plan::{Credential, Quota, credential_for_name, credentials_for, host_for_name, is_shared},
};

/// How long a credential that failed at a target is tried last there.
const FAILED_FOR: Duration = Duration::from_secs(20 * 60);
/// Far more failures than happen in that time. Beyond it, those that are over are forgotten.
const FAILED_MAX: usize = 1_000;

pub(crate) struct Clients {
    credentials: Vec<Credential>,
    /// In the order of `credentials`.
    clients: Vec<CredentialClient>,
    /// When each credential last failed at a target that others serve as well, by its index.
    failed: Mutex<HashMap<(ServerTarget, usize), Instant>>,
}

pub(crate) struct CredentialClient {
    pub github: GitHub,
    /// Where runners that register themselves find GitHub.
    pub web_url: String,
    pub missed: MissedBudgets,
    pub refused: RefusedWebhooks,
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
                refused: RefusedWebhooks::default(),
            })
        });
        let clients = clients.collect::<Result<_, Error>>()?;
        let credentials = credentials.iter().map(CredentialConfig::planner_credential).collect();
        Ok(Self { credentials, clients, failed: Mutex::default() })
    }

    /// The indexes of the credentials that serve a target, the one to use first.
    fn serving(&self, target: &ServerTarget) -> Vec<usize> {
        let mut serving: Vec<usize> = credentials_for(&self.credentials, target).collect();
        if serving.len() > 1 {
            serving.sort_by_key(|index| {
                let left = self.clients[*index].github.left(&target.target);
                (self.is_refused(*index, target), Reverse(left), *index)
            });
        }
        serving
    }

    /// The credential to use at a target in place of this one: the same, unless GitHub refuses it
    /// and others serve the target as well.
    pub(crate) fn stand_in(&self, index: usize, target: &ServerTarget) -> usize {
        let serving = self.serving(target);
        match serving.first() {
            Some(best) if serving.contains(&index) && self.is_refused(index, target) => *best,
            _ => index,
        }
    }

    /// Calls GitHub about a target. `call` must be harmless to repeat: if GitHub refuses one
    /// credential, it is called with the next one. The error is that of the first.
    pub(crate) async fn call<T, F>(
        &self,
        target: &ServerTarget,
        purpose: Purpose,
        call: impl Fn(GitHub) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_until(target, purpose, |_| true, call).await
    }

    /// The same. An answer that is not `final_answer` is the result only if no other credential
    /// has a final one: GitHub hides what a credential may not see.
    pub(crate) async fn call_until<T, F>(
        &self,
        target: &ServerTarget,
        purpose: Purpose,
        final_answer: impl Fn(&T) -> bool,
        call: impl Fn(GitHub) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut result = Err(no_credential(&target.target));
        for (attempt, index) in self.serving(target).into_iter().enumerate() {
            let answer = call(self.clients[index].github.for_purpose(purpose)).await;
            self.note(index, target, answer.as_ref().err());
            let next = match &answer {
                Ok(answer) => !final_answer(answer),
                Err(error) => error.kind.may_differ_by_credential(),
            };
            if !next {
                return if answer.is_ok() || attempt == 0 { answer } else { result };
            }
            if attempt == 0 || result.is_err() && answer.is_ok() {
                result = answer;
            }
        }
        result
    }

    /// Notes how a call about a target ended, for the choice of the next one's credential.
    pub(crate) fn note(&self, index: usize, target: &ServerTarget, error: Option<&Error>) {
        if credentials_for(&self.credentials, target).take(2).count() < 2 {
            return;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.clone(), index);
        match error.map(|error| error.kind) {
            None => drop(failed.remove(&key)),
            // The client knows how long that lasts; the others are not the credential's fault.
            Some(ErrorKind::RateLimited | ErrorKind::Invalid | ErrorKind::NameTaken) => {}
            Some(_) => {
                if failed.len() >= FAILED_MAX {
                    failed.retain(|_, at| at.elapsed() < FAILED_FOR);
                }
                failed.insert(key, Instant::now());
            }
        }
    }

    /// Whether a call with this credential is likely to fail, at a target that others serve too.
    fn is_refused(&self, index: usize, target: &ServerTarget) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let at = failed.get(&(target.clone(), index));
        self.clients[index].github.is_paused() || at.is_some_and(|at| at.elapsed() < FAILED_FOR)
    }

    /// How long look-ups about a repository have to wait, because so little of the budgets of all
    /// credentials that serve `target` is left that it should be used for launches.
    pub(crate) fn reserved_for_launches(
        &self,
        target: &ServerTarget,
        owner: &str,
        repository: &str,
    ) -> Option<Duration> {
        let reserved = credentials_for(&self.credentials, target)
            .map(|index| self.clients[index].github.reserved_for_launches(owner, repository));
        reserved.collect::<Option<Vec<Duration>>>()?.into_iter().min()
    }

    /// What each credential has left that shares targets with another: the planner spreads
    /// launches by it.
    pub(crate) fn quotas(&self) -> Vec<Quota> {
        let shared = (0..self.clients.len()).filter(|it| is_shared(&self.credentials, *it));
        let quotas = shared.flat_map(|credential| {
            let budgets = self.clients[credential].github.launch_budgets().into_iter();
            budgets.map(move |(account, RateLimit { limit, remaining, .. })| Quota {
                credential,
                account,
                limit,
                remaining,
            })
        });
        quotas.collect()
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

    /// Webhooks whose latest deliveries are refused.
    pub(crate) fn refused_webhooks(&self) -> Vec<RefusedWebhook> {
        self.clients.iter().flat_map(|client| client.refused.all()).collect()
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

    fn token(name: &str, targets: &[&str], api_url: &str, web_url: &str) -> CredentialConfig {
        CredentialConfig {
            name: name.into(),
            targets: targets.iter().map(|it| TargetPattern::parse(it).unwrap()).collect(),
            api_url: api_url.into(),
            web_url: web_url.into(),
            identity: Identity::Token(SecretString::from(format!("token-of-{name}")).into()),
            ca: Vec::new(),
            proxy: None,
        }
    }

    #[tokio::test]
    async fn each_target_is_reached_with_its_own_credential() {
        const FIRST: &str = "https://first.example.com";
        const SECOND: &str = "https://second.example.com";
        let credential =
            |targets: &[&str], web_url: &str| token("one", targets, "http://127.0.0.1:9", web_url);
        let credentials = [credential(&["acme/*"], FIRST), credential(&["acme/*", "acme"], SECOND)];
        let clients = Clients::new(&credentials, Duration::from_secs(1)).unwrap();
        let (first, second) = (Host::new("first.example.com"), Host::new("second.example.com"));
        let serving =
            |target: &str, host| clients.serving(&target.parse::<Target>().unwrap().on(host));
        let unknown = Host::default();
        assert_eq!(serving("repo:acme/app", unknown), [0]);
        assert_eq!(serving("org:acme", unknown), [1]);
        // Another server may have a repository of the same name.
        assert_eq!(serving("repo:acme/app", first), [0]);
        assert_eq!(serving("repo:acme/app", second), [1]);
        assert_eq!(serving("org:acme", first), [0; 0]);
        assert_eq!(serving("repo:acme/app", Host::new("third.example.com")), [0; 0]);
        let other: ServerTarget = "org:other".parse().unwrap();
        let target = &other.target;
        let call = |github: GitHub| async move { github.runners(target).await };
        let error = clients.call(&other, Purpose::LookUps, call).await.unwrap_err();
        let expected = "no credential serves org:other: set GITHUB_TOKEN, or add it to the targets of \
                        [[credentials]]";
        assert_eq!(error.to_string(), expected);
    }
}
