//! A credential's scopes or permissions, as GitHub reports them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, rate_limit::sender_now, response::Response, token::Tokens};

/// The scopes of a classic personal access token, separated by commas.
const SCOPES: &str = "x-oauth-scopes";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenInfo {
    pub rights: Rights,
    /// Difference between our clock and GitHub's.
    pub clock_skew: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// A classic token.
    Scopes(Vec<String>),
    /// A fine-grained token. GitHub does not report its permissions.
    Unknown,
    /// A GitHub App, with the permissions it requests from those who install it.
    App { slug: String, permissions: BTreeMap<String, String> },
}

impl GitHub {
    /// Does not count against the rate limit.
    pub(crate) async fn token_info(&self) -> Result<TokenInfo, Error> {
        match &*self.tokens {
            Tokens::App(_) => {
                #[derive(Deserialize)]
                struct Reply {
                    slug: String,
                    permissions: BTreeMap<String, String>,
                }
                let call = "reading the App's permissions";
                let response = self.send_as_self(call, Method::GET, "/app").await?;
                let Reply { slug, permissions } =
                    self.client.read(call, &response, StatusCode::OK)?;
                Ok(TokenInfo::new(Rights::App { slug, permissions }, &response))
            }
            Tokens::Personal(_) => {
                let call = "reading the token's scopes";
                let response = self.send_as_self(call, Method::GET, "/rate_limit").await?;
                // An Enterprise Server without rate limits returns 404.
                if !matches!(response.status, StatusCode::OK | StatusCode::NOT_FOUND) {
                    return Err(self.client.error(call, &response));
                }
                let scopes = response.headers.get(SCOPES).and_then(|scopes| scopes.to_str().ok());
                let rights = scopes.map_or(Rights::Unknown, |scopes| {
                    let scopes = scopes.split(',').map(str::trim).filter(|it| !it.is_empty());
                    Rights::Scopes(scopes.map(str::to_owned).collect())
                });
                Ok(TokenInfo::new(rights, &response))
            }
        }
    }
}

impl TokenInfo {
    fn new(rights: Rights, response: &Response) -> Self {
        let now = SystemTime::now();
        let theirs = sender_now(&response.headers, now);
        let clock_skew = theirs.duration_since(now).unwrap_or_else(|error| error.duration());
        Self { rights, clock_skew }
    }
}
