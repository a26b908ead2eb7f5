//! The way to GitHub: a client for each credential, so that each has its own budget.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    config::CredentialConfig,
    control::snapshot::{BudgetView, MissedView},
    github::{Cause, Error, GitHub},
};
use edgerunner_scheduler::{
    model::Target,
    plan::{Credential, credential_for},
};

pub(crate) struct Clients {
    credentials: Vec<Credential>,
    /// Of the credentials, in their order.
    places: Vec<CredentialClient>,
}

/// GitHub as one credential sees it.
pub(crate) struct CredentialClient {
    pub github: GitHub,
    /// Where runners that register themselves find it.
    pub web_url: String,
    pub missed: Missed,
}

/// What is spent on looking for missed webhooks, by account.
#[derive(Default)]
pub(crate) struct Missed(Mutex<BTreeMap<String, MissedView>>);

impl Missed {
    pub(crate) fn set(&self, account: &str, view: MissedView) {
        let mut views = self.locked();
        match views.get_mut(account) {
            Some(known) => *known = view,
            None => drop(views.insert(account.to_owned(), view)),
        }
    }

    fn get(&self, account: &str) -> Option<MissedView> {
        self.locked().get(account).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, MissedView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    pub(crate) fn new(credentials: &[CredentialConfig], timeout: Duration) -> Result<Self, Error> {
        let places = credentials.iter().map(|credential| {
            let github = credential.github(timeout)?;
            Ok(CredentialClient {
                github,
                web_url: credential.web_url.clone(),
                missed: Missed::default(),
            })
        });
        let places = places.collect::<Result<_, Error>>()?;
        let credentials = credentials.iter().map(CredentialConfig::planned).collect();
        Ok(Self { credentials, places })
    }

    pub(crate) fn to(&self, target: &Target) -> Result<&CredentialClient, Error> {
        match credential_for(&self.credentials, target) {
            Some(index) => Ok(&self.places[index]),
            None => Err(Error {
                cause: Cause::Forbidden,
                retry_after: None,
                message: format!("no credential serves {target}"),
            }),
        }
    }

    /// That of the credential with this index.
    pub(crate) fn place(&self, index: usize) -> &CredentialClient {
        &self.places[index]
    }

    /// What is left of each credential's requests.
    pub(crate) fn budgets(&self) -> Vec<BudgetView> {
        let places = self.credentials.iter().zip(&self.places);
        places
            .flat_map(|(credential, place)| {
                place.github.budgets().into_iter().map(|(account, budget)| BudgetView {
                    credential: credential.name.clone(),
                    missed: place.missed.get(&account),
                    account,
                    limit: budget.limit,
                    remaining: budget.remaining,
                    reset_ms: budget.reset.saturating_mul(1000),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::github::Identity;
    use edgerunner_scheduler::plan::TargetPattern;

    #[tokio::test]
    async fn each_target_is_reached_with_its_own_credential() {
        let credential = |target: &str, web_url: &str| CredentialConfig {
            name: "one".into(),
            targets: vec![TargetPattern::parse(target).unwrap()],
            api_url: "http://127.0.0.1:9".into(),
            web_url: web_url.into(),
            identity: Identity::Token(SecretString::from("token").into()),
            ca: Vec::new(),
            proxy: None,
        };
        let credentials = [credential("acme/*", "first"), credential("acme", "second")];
        let access = Clients::new(&credentials, Duration::from_secs(1)).unwrap();
        let place = |target: &str| access.to(&target.parse().unwrap());
        assert_eq!(place("repo:acme/app").unwrap().web_url, "first");
        assert_eq!(place("org:acme").unwrap().web_url, "second");
        let error = place("org:other").err().unwrap();
        assert_eq!(error.to_string(), "no credential serves org:other");
    }
}
