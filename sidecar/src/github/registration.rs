use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use http::{Method, StatusCode};
use octocrab::models::actions::SelfHostedRunnerToken;
use secrecy::SecretString;

use super::rate_limit::sender_now;
use super::{Error, GitHub, runners_path};
use crate::flight::Flights;
use crate::model::Target;

/// A container has this long from getting a token to registering with it.
const LIFE_LEFT_MIN: Duration = Duration::from_secs(5 * 60);

/// The registration tokens that can still be handed out.
pub(super) struct RegistrationTokens {
    kept: Mutex<HashMap<Target, Token>>,
    requests: Flights<Target, Result<Token, Error>>,
}

#[derive(Clone)]
struct Token {
    secret: SecretString,
    good_until: Instant,
}

impl RegistrationTokens {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(HashMap::new()), requests: Flights::new() }
    }

    pub(super) async fn get(
        &self,
        github: &GitHub,
        target: &Target,
    ) -> Result<SecretString, Error> {
        if let Some(token) = self.kept(target) {
            return Ok(token.secret);
        }
        let request = || {
            let (github, target) = (github.clone(), target.clone());
            async move { github.registration_tokens.request(&github, &target).await }.boxed()
        };
        let token = self.requests.join(target.clone(), request).await?;
        Ok(token.secret)
    }

    async fn request(&self, github: &GitHub, target: &Target) -> Result<Token, Error> {
        // Another request may have landed between the look and the start of this one.
        if let Some(token) = self.kept(target) {
            return Ok(token);
        }
        let call = format!("registration token for {target}");
        let path = format!("{}/registration-token", runners_path(target));
        let asked = Instant::now();
        let answer = github.client.send(&call, Method::POST, &path, None, target).await?;
        let reply: SelfHostedRunnerToken =
            github.client.read(&call, &answer, StatusCode::CREATED)?;

        let expires = u64::try_from(reply.expires_at.timestamp()).unwrap_or_default();
        let expires = UNIX_EPOCH + Duration::from_secs(expires);
        let life = expires
            .duration_since(sender_now(&answer.headers, SystemTime::now()))
            .unwrap_or_default();
        let token = Token {
            secret: reply.token.into(),
            good_until: asked + life.saturating_sub(LIFE_LEFT_MIN),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(target.clone(), token.clone());
        Ok(token)
    }

    fn kept(&self, target: &Target) -> Option<Token> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(target).filter(|token| Instant::now() < token.good_until).cloned()
    }
}
