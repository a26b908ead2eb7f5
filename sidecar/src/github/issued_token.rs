//! A token that GitHub issued for a limited time.

use std::{
    hash::Hash,
    time::{Duration, Instant, SystemTime},
};

use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    back_off::{BackOff, Problem},
    client::Client,
    error::{Error, ErrorKind},
    rate_limit::sender_now,
    response::Response,
};

/// Callers may use a token late: a container when it registers.
const LIFE_LEFT_MIN: Duration = Duration::from_secs(5 * 60);
/// Of GitHub's tokens.
const LIFE: Duration = Duration::from_secs(3_600);
/// One with less than this has expired for all purposes.
const LIFE_MIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    renew_at: Instant,
    expires_at: Instant,
}

impl Token {
    /// Reads the response to a request for a token. One that has expired by GitHub's own clock
    /// is returned too, since that clock may be wrong, and is kept for as long as the back-off
    /// lasts: asking at once would bring another one like it.
    ///
    /// `sent`: when the request was sent.
    pub(super) fn read<K: Clone + Eq + Hash>(
        client: &Client,
        call: &str,
        response: &Response,
        sent: Instant,
        back_off: &BackOff<K>,
        key: &K,
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
        let (renew_at, life) = if life < LIFE_MIN {
            let problem = format_args!(
                "GitHub issued a token that expires at {expires_at}, which is {} s from now by \
                 GitHub's clock; check that server's clock, and this machine's",
                life.as_secs()
            );
            let error = Error::new(ErrorKind::Unauthorized, call, problem);
            (sent + back_off.failed(key, Problem::Expired, &error, sent), LIFE)
        } else {
            back_off.succeeded(key, &[Problem::NotIssued, Problem::Expired]);
            (sent + kept_for(life), life)
        };
        Ok(Self { secret: token, renew_at, expires_at: sent + life })
    }

    pub(super) fn is_current(&self) -> bool {
        Instant::now() < self.renew_at
    }

    pub(super) fn valid_for(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }
}

/// How long a token with this life is used before another is requested.
fn kept_for(life: Duration) -> Duration {
    life.saturating_sub(LIFE_LEFT_MIN).max(life / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_while_it_can_still_be_used() {
        for (life, kept) in [(3_600, 3_300), (900, 600), (600, 300), (360, 180), (60, 30)] {
            assert_eq!(kept_for(Duration::from_secs(life)), Duration::from_secs(kept));
        }
    }
}
