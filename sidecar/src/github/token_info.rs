//! What GitHub tells of a credential itself.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, client::Answer, identity::Tokens, rate_limit::sender_now};

/// Of a classic personal access token: a list with commas.
const SCOPES: &str = "x-oauth-scopes";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenInfo {
    pub rights: Rights,
    /// How far our clock and GitHub's are apart.
    pub clock_skew: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// A classic token.
    Scopes(Vec<String>),
    /// A fine-grained token, or an installation's: what it may do shows at each target.
    Unknown,
    /// A GitHub App, with the permissions that it asks of those who install it.
    App { slug: String, permissions: BTreeMap<String, String> },
}

impl GitHub {
    /// Costs nothing of the budget.
    pub(crate) async fn token_info(&self) -> Result<TokenInfo, Error> {
        match &*self.client.tokens {
            Tokens::App(app) => {
                #[derive(Deserialize)]
                struct Reply {
                    slug: String,
                    permissions: BTreeMap<String, String>,
                }
                let call = "the App itself";
                let answer = app.ask(&self.client, call, Method::GET, "/app").await?;
                let Reply { slug, permissions } =
                    self.client.read(call, &answer, StatusCode::OK)?;
                Ok(TokenInfo::of(Rights::App { slug, permissions }, &answer))
            }
            Tokens::Personal(token) => {
                let (call, path) = ("rights of the token", "/rate_limit");
                let token = token.get();
                let answer =
                    self.client.exchange_in_time(call, &Method::GET, path, None, &token).await?;
                // An Enterprise Server without rate limits has no such page.
                if !matches!(answer.status, StatusCode::OK | StatusCode::NOT_FOUND) {
                    return Err(self.client.error(call, &answer));
                }
                let scopes = answer.headers.get(SCOPES).and_then(|scopes| scopes.to_str().ok());
                let rights = scopes.map_or(Rights::Unknown, |scopes| {
                    let scopes = scopes.split(',').map(str::trim).filter(|it| !it.is_empty());
                    Rights::Scopes(scopes.map(str::to_owned).collect())
                });
                Ok(TokenInfo::of(rights, &answer))
            }
        }
    }
}

impl TokenInfo {
    fn of(rights: Rights, answer: &Answer) -> Self {
        let now = SystemTime::now();
        let theirs = sender_now(&answer.headers, now);
        let clock_skew = theirs.duration_since(now).unwrap_or_else(|error| error.duration());
        Self { rights, clock_skew }
    }
}
