//! Tokens for calls to GitHub: a personal access token, or those of an App's installations.

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    app::{App, account},
    client::Client,
    error::{Error, ErrorKind},
};
use crate::{
    config::{Identity, private_key_problem, token_problem},
    secret::{Problem, RotatingSecret, Secret},
};
use edgerunner_scheduler::model::Target;

pub(super) enum Tokens {
    Personal(RotatingSecret),
    App(Box<App>),
}

impl Tokens {
    pub(super) fn new(identity: Identity) -> Result<Self, Error> {
        Ok(match identity {
            Identity::Token(token) => Self::Personal(rotating(token, token_problem)?),
            Identity::App { id, private_key } => {
                Self::App(Box::new(App::new(id, rotating(private_key, private_key_problem)?)))
            }
        })
    }

    pub(super) async fn get(
        &self,
        client: &Client,
        target: &Target,
    ) -> Result<SecretString, Error> {
        match self {
            Self::Personal(token) => Ok(token.get().await),
            // Boxed, because it is large and rarely needed.
            Self::App(app) => Box::pin(app.token(client, target)).await,
        }
    }

    /// The account whose budget a call for a target counts against: an App has one at each
    /// account, a token has one under an empty name.
    pub(super) fn account(&self, target: &Target) -> String {
        match self {
            Self::Personal(_) => String::new(),
            Self::App(_) => account(target).map(str::to_lowercase).unwrap_or_default(),
        }
    }

    /// Notes that GitHub accepted a token.
    pub(super) fn accepted(&self, token: &SecretString) {
        match self {
            Self::Personal(_) => {}
            Self::App(app) => app.accepted(token),
        }
    }

    /// Drops a token that GitHub refused. `true` if there may be another one to try.
    pub(super) async fn replace(&self, refused: &SecretString) -> bool {
        match self {
            // Its file may have been replaced.
            Self::Personal(token) => token.get().await.expose_secret() != refused.expose_secret(),
            Self::App(app) => {
                app.forget(refused);
                true
            }
        }
    }
}

fn rotating(secret: Secret, problem: Problem) -> Result<RotatingSecret, Error> {
    match problem(&secret.value) {
        Some(problem) => Err(Error::new(ErrorKind::Invalid, "configuration", problem)),
        None => Ok(RotatingSecret::new(secret, problem)),
    }
}
