//! Client of the part of GitHub's REST API that runners need.

mod app;
mod app_manifest;
mod back_off;
mod budget;
mod call_cache;
mod client;
pub(crate) mod clients;
mod deliveries;
mod error;
mod etag_cache;
mod issued_token;
mod jit;
mod jobs;
mod link;
mod meta;
mod moved;
mod page;
mod path;
mod rate_limit;
mod refused_webhooks;
mod registration_tokens;
mod repositories;
mod requests;
pub(crate) mod reruns;
mod response;
mod runner_groups;
mod runner_versions;
mod runners;
pub(crate) mod spending;
#[cfg(test)]
mod tests;
mod token;
mod token_info;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::Method;

pub(crate) use self::{
    app_manifest::{NewApp, is_organization, register_app},
    error::{Error, ErrorKind},
    jit::{JIT_LIFE, NewRunner},
    jobs::ListedJob,
    refused_webhooks::{REFUSED_FOR_MS, RefusedWebhook},
    runner_versions::VersionEnd,
    runners::RunnerRemoval,
    spending::{Purpose, Spent},
    token_info::{Rights, TokenInfo},
    webhooks::{RegisteredWebhook, WEBHOOK_EVENT},
};
use self::{
    back_off::BackOff, call_cache::CallCache, client::Client, issued_token::Token,
    response::Response, token::Tokens,
};
use crate::config::CredentialConfig;
use edgerunner_scheduler::{missed::RateLimit, model::Target};

/// The last tenth of a budget is left to launches.
const LEFT_TO_LAUNCHES: u64 = 10;
const BUDGET_PERIOD: Duration = Duration::from_secs(3_600);

/// GitHub as one credential sees it. Clones share connections, caches and limits.
#[derive(Clone)]
pub(crate) struct GitHub {
    client: Client,
    tokens: Arc<Tokens>,
    registration_tokens: Arc<CallCache<Target, Token>>,
    registration_back_off: Arc<BackOff<Target>>,
    /// Ids of runner groups by target and name.
    group_ids: Arc<CallCache<(Target, String), u64>>,
}

impl GitHub {
    /// `timeout` limits each call, from sending the request to the end of the response.
    pub(crate) fn new(credential: &CredentialConfig, timeout: Duration) -> Result<Self, Error> {
        Ok(Self {
            client: Client::new(credential, timeout)?,
            tokens: Arc::new(Tokens::new(credential.identity.clone())?),
            registration_tokens: Arc::new(CallCache::new()),
            registration_back_off: Arc::new(BackOff::new()),
            group_ids: Arc::new(CallCache::new()),
        })
    }

    /// The same, with requests counted for this purpose.
    pub(crate) fn for_purpose(&self, purpose: Purpose) -> Self {
        Self { client: self.client.with_purpose(purpose), ..self.clone() }
    }

    /// What the last hour's requests were for.
    pub(crate) fn spent(&self) -> Vec<Spent> {
        self.client.spending.last_hour(Instant::now())
    }

    /// The request budgets by account: an App has its own, under an empty name, and one for
    /// each account where it is installed; a token has one, under an empty name.
    pub(crate) fn budgets(&self) -> Vec<(String, RateLimit)> {
        self.client.budgets.all()
    }

    pub(crate) fn budget(&self, account: &str) -> Option<RateLimit> {
        self.client.budgets.get(account)
    }

    /// The budgets of this hour that calls about runners count against, by account; a token has
    /// one, under an empty name.
    pub(crate) fn launch_budgets(&self) -> Vec<(String, RateLimit)> {
        let is_app = matches!(&*self.tokens, Tokens::App(_));
        let mut budgets = self.budgets();
        budgets.retain(|(account, budget)| {
            is_app != account.is_empty() && until_reset(budget).is_some()
        });
        budgets
    }

    /// The share of this hour's requests that is left for calls about a target, in millionths.
    /// Whole if it is not known.
    pub(crate) fn left(&self, target: &Target) -> u64 {
        const WHOLE: u64 = 1_000_000;
        let budget = self.budget(&self.account(target));
        let current = budget.filter(|budget| until_reset(budget).is_some());
        let share =
            |budget: RateLimit| budget.remaining.saturating_mul(WHOLE) / budget.limit.max(1);
        current.map_or(WHOLE, share)
    }

    /// Whether GitHub asked callers with this credential to wait.
    pub(crate) fn is_paused(&self) -> bool {
        self.client.is_paused()
    }

    /// How long a call about a repository has to wait if so little of the budget is left that
    /// it should be used for launches.
    pub(crate) fn reserved_for_launches(&self, owner: &str, repository: &str) -> Option<Duration> {
        let target = Target::Repository { owner: owner.into(), name: repository.into() };
        let budget = self.budget(&self.account(&target))?;
        let left = until_reset(&budget)?;
        (budget.remaining < budget.limit / LEFT_TO_LAUNCHES).then_some(left)
    }

    /// The account whose budget a call for a target counts against.
    pub(crate) fn account(&self, target: &Target) -> String {
        self.tokens.account(target)
    }

    /// Sends a request with the token, or as the App itself.
    async fn send_as_self(
        &self,
        call: &str,
        method: Method,
        path: &str,
    ) -> Result<Response, Error> {
        match &*self.tokens {
            Tokens::App(app) => app.send(&self.client, call, method, path).await,
            Tokens::Personal(token) => {
                self.client.send_as(call, &method, path, None, &token.get().await).await
            }
        }
    }
}

/// `None` once it is reset.
fn until_reset(budget: &RateLimit) -> Option<Duration> {
    let reset = UNIX_EPOCH.checked_add(Duration::from_secs(budget.reset))?;
    let left = reset.duration_since(SystemTime::now()).ok()?;
    // A reset more than an hour away comes from a clock that is wrong.
    (left <= BUDGET_PERIOD).then_some(left)
}
