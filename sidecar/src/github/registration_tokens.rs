//! Registration tokens: runners register themselves with one.

use std::time::{Duration, Instant};

use http::Method;
use secrecy::SecretString;

use super::{Error, GitHub, issued_token::Token, path};
use edgerunner_scheduler::model::Target;

/// For runners that register themselves.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationToken {
    pub secret: SecretString,
    pub valid_for: Duration,
}

impl GitHub {
    /// Valid for any number of runners until shortly before it expires, so it is cached.
    /// Concurrent callers share one call, and all callers the wait after a refusal.
    pub(crate) async fn registration_token(
        &self,
        target: &Target,
    ) -> Result<RegistrationToken, Error> {
        let call = Box::pin(self.request_registration_token(target));
        let call = self.registration_back_off.limit(target, call);
        let token = self.registration_tokens.get(target, Token::is_current, call).await?;
        let valid_for = token.valid_for();
        Ok(RegistrationToken { secret: token.secret, valid_for })
    }

    async fn request_registration_token(&self, target: &Target) -> Result<Token, Error> {
        let call = format!("requesting a registration token for {target}");
        let path = format!("{}/registration-token", path::runners(target));
        let sent = Instant::now();
        let response = self.send(&call, Method::POST, &path, None, target).await?;
        Token::read(&self.client, &call, &response, sent, &self.registration_back_off, target)
    }
}
