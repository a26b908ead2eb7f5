//! Requests with the token of the credential.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::{GitHub, error::Error, response::Response};
use edgerunner_scheduler::model::Target;

/// 10,000 runners of one target.
pub(super) const PAGES_MAX: usize = 100;

impl GitHub {
    /// All pages of a list that begins at `path`.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        call: &str,
        mut path: String,
        target: &Target,
    ) -> Result<Vec<T>, Error> {
        let mut pages = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.send(call, Method::GET, &path, None, target).await?;
            pages.push(self.client.read(call, &response, StatusCode::OK)?);
            match self.client.next_page(call, &response)? {
                Some(next) => path = next,
                None => return Ok(pages),
            }
        }
        Err(Error::unexpected(call, format_args!("more than {PAGES_MAX} pages")))
    }

    /// Sends a request with the token for `target`, whose runners or jobs it is about. `call`
    /// names the request in errors; `path` is relative to the base URL. See
    /// [`Client::send_as`](super::client::Client::send_as) for what it returns.
    pub(super) async fn send(
        &self,
        call: &str,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        target: &Target,
    ) -> Result<Response, Error> {
        let token = self.tokens.get(&self.client, target).await?;
        let mut response = self.client.send_as(call, &method, path, body.clone(), &token).await?;
        // A request whose token was refused had no effect, so it may be repeated.
        if response.status == StatusCode::UNAUTHORIZED && self.tokens.replace(&token).await {
            let token = self.tokens.get(&self.client, target).await?;
            response = self.client.send_as(call, &method, path, body, &token).await?;
            if response.status == StatusCode::UNAUTHORIZED {
                self.tokens.replace(&token).await;
            }
        }
        if response.status != StatusCode::UNAUTHORIZED {
            self.tokens.accepted(&response.token);
        }
        self.client.budgets.record(&self.tokens.account(target), &response);
        Ok(response)
    }
}
