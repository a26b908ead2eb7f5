use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::{client::Answer, error::Error, rate_limit::sender_now};
use crate::singleflight::Flights;

/// Whoever gets a token may take its time with it: a container until it registers.
const LIFE_LEFT_MIN: Duration = Duration::from_secs(5 * 60);

/// Tokens that can be handed out until shortly before they expire. Callers who ask for
/// one at the same time share a request.
pub(super) struct TokenCache<K> {
    kept: Mutex<HashMap<K, Token>>,
    requests: Flights<K, Result<Token, Error>>,
}

#[derive(Clone)]
pub(super) struct Token {
    secret: SecretString,
    good_until: Instant,
}

impl Token {
    /// `asked` is when, and `answer` what it came with, whose clock it expires by.
    pub(super) fn new(
        secret: SecretString,
        expires: SystemTime,
        asked: Instant,
        answer: &Answer,
    ) -> Self {
        let life = expires
            .duration_since(sender_now(&answer.headers, SystemTime::now()))
            .unwrap_or_default();
        Self { secret, good_until: asked + life.saturating_sub(LIFE_LEFT_MIN) }
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> TokenCache<K> {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(HashMap::new()), requests: Flights::new() }
    }

    /// The kept one, or else the one that `request` brings.
    pub(super) async fn get<F: Future<Output = Result<Token, Error>> + Send>(
        self: &Arc<Self>,
        key: K,
        request: impl FnOnce() -> F + Send + 'static,
    ) -> Result<SecretString, Error> {
        if let Some(token) = self.kept(&key) {
            return Ok(token.secret);
        }
        let start = || {
            let (this, key) = (Arc::clone(self), key.clone());
            let renewal = async move {
                // Another may have landed between the look and the start of this one.
                if let Some(token) = this.kept(&key) {
                    return Ok(token);
                }
                let token = request().await?;
                this.locked().insert(key, token.clone());
                Ok(token)
            };
            renewal.boxed()
        };
        Ok(self.requests.join(key.clone(), start).await?.secret)
    }

    /// Keeps it no longer; one that took its place meanwhile stays.
    pub(super) fn forget(&self, secret: &SecretString) {
        self.locked().retain(|_, kept| kept.secret.expose_secret() != secret.expose_secret());
    }

    fn kept(&self, key: &K) -> Option<Token> {
        self.locked().get(key).filter(|token| Instant::now() < token.good_until).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<K, Token>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
