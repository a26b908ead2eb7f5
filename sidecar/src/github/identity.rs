use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    client::{Answer, Client},
    error::{Cause, Error},
    rate_limit::sender_now,
    secret::{Problem, Rotating, Secret},
    segment,
    token_cache::{Token, TokenCache},
};
use edgerunner_scheduler::model::Target;

/// GitHub takes web tokens that end within 10 minutes, and whose beginning is past.
const WEB_TOKEN_AGE: i64 = 60;
const WEB_TOKEN_LIFE: i64 = 9 * 60;
/// A clock that is further off is why GitHub refuses a web token.
const SKEW_MAX: i64 = 30;

/// Who we are to GitHub.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// A personal access token.
    Token(Secret),
    App {
        /// The App's id, or its client id.
        id: String,
        private_key: Secret,
    },
}

/// Why a key cannot be a GitHub App's. Says nothing of the key.
pub(crate) fn private_key_problem(pem: &SecretString) -> Option<&'static str> {
    EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).is_err().then_some(
        "write the private key as GitHub made it: a PEM that begins with \
         -----BEGIN RSA PRIVATE KEY-----",
    )
}

pub(super) enum Tokens {
    Personal(Rotating),
    App(Arc<App>),
}

impl Tokens {
    pub(super) fn new(identity: Identity) -> Result<Self, Error> {
        Ok(match identity {
            Identity::Token(token) => Self::Personal(rotating(token, token_problem)?),
            Identity::App { id, private_key } => Self::App(Arc::new(App::new(id, private_key)?)),
        })
    }

    pub(super) async fn get(
        &self,
        client: &Client,
        target: &Target,
    ) -> Result<SecretString, Error> {
        match self {
            Self::Personal(token) => Ok(token.get()),
            Self::App(app) => app.token(client, target).await,
        }
    }

    /// Whose budget a call for a target counts against: an App has one at each account.
    pub(super) fn account(&self, target: &Target) -> String {
        match self {
            Self::Personal(_) => String::new(),
            Self::App(_) => account(target).map(str::to_lowercase).unwrap_or_default(),
        }
    }

    /// GitHub has refused this token. `true`: another can be had, so ask again.
    pub(super) fn refused(&self, token: &SecretString) -> bool {
        match self {
            // Its file may have been replaced meanwhile.
            Self::Personal(kept) => kept.get().expose_secret() != token.expose_secret(),
            Self::App(app) => {
                app.tokens.forget(token);
                true
            }
        }
    }
}

fn rotating(secret: Secret, problem: Problem) -> Result<Rotating, Error> {
    match problem(&secret.value) {
        Some(problem) => Err(Error::new(Cause::Invalid, "configuration", problem)),
        None => Ok(Rotating::new(secret, problem)),
    }
}

fn token_problem(token: &SecretString) -> Option<&'static str> {
    let fits = token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
    (!fits).then_some("the token holds characters no token has; check for a line break")
}

/// A GitHub App, and the tokens of its installations.
pub(super) struct App {
    id: String,
    key: Rotating,
    /// Seconds that GitHub's clock is ahead of ours, as far as that mattered.
    skew: AtomicI64,
    installations: Mutex<HashMap<String, u64>>,
    /// By account.
    tokens: Arc<TokenCache<String>>,
}

impl App {
    fn new(id: String, private_key: Secret) -> Result<Self, Error> {
        Ok(Self {
            id,
            key: rotating(private_key, private_key_problem)?,
            skew: AtomicI64::new(0),
            installations: Mutex::default(),
            tokens: Arc::new(TokenCache::new()),
        })
    }

    async fn token(
        self: &Arc<Self>,
        client: &Client,
        target: &Target,
    ) -> Result<SecretString, Error> {
        let account = account(target)?.to_lowercase();
        let request = {
            let (app, client) = (Arc::clone(self), client.clone());
            let (target, account) = (target.clone(), account.clone());
            || async move { app.request(&client, &target, &account).await }
        };
        self.tokens.get(account, request).await
    }

    async fn request(
        &self,
        client: &Client,
        target: &Target,
        account: &str,
    ) -> Result<Token, Error> {
        let installation = self.installation(client, target, account).await?;
        let call = format!("token of the App's installation at {account}");
        let path = format!("/app/installations/{installation}/access_tokens");
        let asked = Instant::now();
        let answer = self.ask(client, &call, Method::POST, &path).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // Removed, and perhaps installed anew under another id.
            self.installations.lock().unwrap_or_else(PoisonError::into_inner).remove(account);
        }
        let reply: Reply = client.read(&call, &answer, StatusCode::CREATED)?;
        let expires: jiff::Timestamp = reply.expires_at.parse().map_err(|_| {
            Error::unexpected(&call, "an expires_at that is not a time as in RFC 3339")
        })?;
        Ok(Token::new(reply.token, expires.into(), asked, &answer))
    }

    async fn installation(
        &self,
        client: &Client,
        target: &Target,
        account: &str,
    ) -> Result<u64, Error> {
        let known = || {
            let installations = self.installations.lock().unwrap_or_else(PoisonError::into_inner);
            installations.get(account).copied()
        };
        if let Some(id) = known() {
            return Ok(id);
        }
        let call = format!("installation of the App for {target}");
        let path = match target {
            Target::Repository { owner, name } => {
                format!("/repos/{}/{}/installation", segment(owner), segment(name))
            }
            Target::Organization(name) | Target::Enterprise(name) => {
                format!("/orgs/{}/installation", segment(name))
            }
        };
        let answer = self.ask(client, &call, Method::GET, &path).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let what = format!(
                "404; the App is not installed there: install it at {account}, with the permission \
                 to write Administration (repositories) or Self-hosted runners (organizations)"
            );
            return Err(Error::new(Cause::NotFound, &call, what));
        }
        let found: Installation = client.read(&call, &answer, StatusCode::OK)?;
        let mut installations = self.installations.lock().unwrap_or_else(PoisonError::into_inner);
        installations.insert(account.to_owned(), found.id);
        Ok(found.id)
    }

    /// As the App itself.
    pub(super) async fn ask(
        &self,
        client: &Client,
        call: &str,
        method: Method,
        path: &str,
    ) -> Result<Answer, Error> {
        let answer = client.exchange_in_time(call, &method, path, None, &self.sign(call)?).await?;
        client.budgets.note("", &answer);
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let ahead = seconds(sender_now(&answer.headers, SystemTime::now())) - now();
        let before = self.skew.swap(ahead, Ordering::Relaxed);
        if (ahead - before).abs() > SKEW_MAX {
            tracing::warn!(seconds = ahead, "GitHub's clock is ahead of ours: set this one right");
            return client.exchange_in_time(call, &method, path, None, &self.sign(call)?).await;
        }
        Err(Error::new(
            Cause::Unauthorized,
            call,
            "401; GitHub does not take the App's key: check app_id, app_private_key and the clock",
        ))
    }

    fn sign(&self, call: &str) -> Result<SecretString, Error> {
        let now = now() + self.skew.load(Ordering::Relaxed);
        let claims = Claims { iss: &self.id, iat: now - WEB_TOKEN_AGE, exp: now + WEB_TOKEN_LIFE };
        EncodingKey::from_rsa_pem(self.key.get().expose_secret().as_bytes())
            .and_then(|key| jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key))
            .map(SecretString::from)
            .map_err(|_| Error::new(Cause::Invalid, call, "the App's private key cannot sign"))
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct Reply {
    token: SecretString,
    expires_at: String,
}

fn account(target: &Target) -> Result<&str, Error> {
    match target {
        Target::Repository { owner, .. } => Ok(owner),
        Target::Organization(name) => Ok(name),
        Target::Enterprise(_) => Err(Error::new(
            Cause::Forbidden,
            &format!("runners of {target}"),
            "a GitHub App cannot register runners of an enterprise: name it among the targets of \
             one of [[credentials]] that has a token",
        )),
    }
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
