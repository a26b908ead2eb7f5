//! A token that GitHub issued for a limited time.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;

use super::{client::Client, error::Error, rate_limit::sender_now, response::Response};

/// Callers may use a token late: a container when it registers.
const LIFE_LEFT_MIN: Duration = Duration::from_secs(5 * 60);

#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    renew_at: Instant,
}

impl Token {
    /// `sent`: when the request was sent.
    pub(super) fn read(
        client: &Client,
        call: &str,
        response: &Response,
        sent: Instant,
    ) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Reply {
            token: SecretString,
            expires_at: String,
        }
        let Reply { token, expires_at } = client.read(call, response, StatusCode::CREATED)?;
        let expires_at: jiff::Timestamp = expires_at
            .parse()
            .map_err(|_| Error::unexpected(call, "expires_at is not a time as in RFC 3339"))?;
        // By the clock that wrote it.
        let now = sender_now(&response.headers, SystemTime::now());
        let life = SystemTime::from(expires_at).duration_since(now).unwrap_or_default();
        Ok(Self { secret: token, renew_at: sent + life.saturating_sub(LIFE_LEFT_MIN) })
    }

    pub(super) fn is_current(&self) -> bool {
        Instant::now() < self.renew_at
    }
}
