//! Client of the part of GitHub's REST API that runners need.

mod app;
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
mod page;
mod path;
mod rate_limit;
mod registration_tokens;
mod requests;
mod response;
mod runner_groups;
mod runners;
#[cfg(test)]
mod tests;
mod token;
mod token_info;
mod webhooks;

use std::{sync::Arc, time::Duration};

use http::Method;

use self::{
    call_cache::CallCache, client::Client, issued_token::Token, response::Response, token::Tokens,
};
pub(crate) use self::{
    error::{Error, ErrorKind},
    jit::NewRunner,
    jobs::ListedJob,
    runners::RunnerRemoval,
    token_info::{Rights, TokenInfo},
    webhooks::RegisteredWebhook,
};
use crate::config::CredentialConfig;
use edgerunner_scheduler::{missed::RateLimit, model::Target};

/// GitHub as one credential sees it. Clones share connections, caches and limits.
#[derive(Clone)]
pub(crate) struct GitHub {
    client: Client,
    tokens: Arc<Tokens>,
    registration_tokens: Arc<CallCache<Target, Token>>,
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
            group_ids: Arc::new(CallCache::new()),
        })
    }

    /// The request budgets by account: an App has its own, under an empty name, and one for
    /// each account where it is installed; a token has one, under an empty name.
    pub(crate) fn budgets(&self) -> Vec<(String, RateLimit)> {
        self.client.budgets.all()
    }

    pub(crate) fn budget(&self, account: &str) -> Option<RateLimit> {
        self.client.budgets.get(account)
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
