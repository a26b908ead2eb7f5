//! A GitHub App: its JSON Web Tokens, its installations and their tokens.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    back_off::{BackOff, Problem},
    call_cache::CallCache,
    client::Client,
    error::{Error, ErrorKind},
    issued_token::Token,
    path,
    rate_limit::sender_now,
    response::Response,
    spending::Purpose,
};
use crate::{jwt::SigningKey, secret::RotatingSecret};
use edgerunner_scheduler::model::Target;

/// Seconds. GitHub accepts JSON Web Tokens that were issued in the past and expire within 10
/// minutes.
const JWT_AGE: i64 = 60;
const JWT_LIFE: i64 = 9 * 60;
/// Seconds between our clock and GitHub's that explain why GitHub refuses a token.
const CLOCK_SKEW_MAX: i64 = 30;

pub(super) struct App {
    id: String,
    key: RotatingSecret,
    /// Seconds that GitHub's clock was ahead of ours when it last refused a token.
    clock_skew: AtomicI64,
    /// Ids of installations by account.
    accounts: Mutex<HashMap<String, u64>>,
    /// Ids of installations by the target for which they were looked up.
    installations: CallCache<Target, u64>,
    look_ups: BackOff<Target>,
    /// Tokens by installation.
    tokens: CallCache<u64, Token>,
    requests: BackOff<u64>,
}

impl App {
    pub(super) fn new(id: String, key: RotatingSecret) -> Self {
        Self {
            id,
            key,
            clock_skew: AtomicI64::new(0),
            accounts: Mutex::default(),
            installations: CallCache::new(),
            look_ups: BackOff::new(),
            tokens: CallCache::new(),
            requests: BackOff::new(),
        }
    }

    /// The token of the installation that serves a target.
    pub(super) async fn token(
        &self,
        client: &Client,
        target: &Target,
    ) -> Result<SecretString, Error> {
        let client = &client.with_purpose(Purpose::Tokens);
        let account = account(target)?.to_lowercase();
        let known = self.accounts().get(&account).copied();
        let installation = match known {
            Some(id) => id,
            None => {
                // For each target alone: that the App may not see one of them says nothing
                // about the others of its account.
                let call = self.look_ups.limit(target, self.look_up(client, target, &account));
                self.installations.get(target, |_| true, call).await?
            }
        };
        let call = self.requests.limit(&installation, self.request(client, installation, &account));
        Ok(self.tokens.get(&installation, Token::is_current, call).await?.secret)
    }

    /// Notes that GitHub accepted a token.
    pub(super) fn accepted(&self, token: &SecretString) {
        if !self.requests.is_empty()
            && let Some(installation) = self.tokens.find(|cached| is_same(cached, token))
        {
            self.requests.succeeded(&installation, &[Problem::Refused]);
        }
    }

    /// Drops a token that GitHub refused, but not one that has replaced it.
    pub(super) fn forget(&self, token: &SecretString) {
        let Some(installation) = self.tokens.find(|cached| is_same(cached, token)) else { return };
        self.tokens.remove_if(|_, cached| is_same(cached, token));
        let call = format!("using the token of installation {installation}");
        let problem = "GitHub refuses a token that it issued (401); check this machine's clock,                        and that the App is still installed";
        let error = Error::new(ErrorKind::Unauthorized, &call, problem);
        self.requests.failed(&installation, Problem::Refused, &error, Instant::now());
    }

    async fn request(
        &self,
        client: &Client,
        installation: u64,
        account: &str,
    ) -> Result<Token, Error> {
        let call = format!("requesting an installation token for {account}");
        let path = format!("/app/installations/{installation}/access_tokens");
        let sent = Instant::now();
        let response = self.send(client, &call, Method::POST, &path).await?;
        if response.status == StatusCode::NOT_FOUND {
            // The App was removed there, and may have been installed again under another id.
            self.accounts().retain(|_, id| *id != installation);
            self.installations.remove_if(|_, id| *id == installation);
        }
        Token::read(client, &call, &response, sent, &self.requests, &installation)
    }

    async fn look_up(&self, client: &Client, target: &Target, account: &str) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Reply {
            id: u64,
            account: Option<Account>,
        }
        #[derive(Deserialize)]
        struct Account {
            login: Option<String>,
        }
        let call = format!("looking up the App's installation for {target}");
        let (path, also) = match target {
            Target::Repository { owner, name } => (
                format!("{}/installation", path::repository(owner, name)),
                ", and with access to this repository",
            ),
            Target::Organization(name) | Target::Enterprise(name) => {
                (format!("/orgs/{}/installation", path::segment(name)), "")
            }
        };
        let response = self.send(client, &call, Method::GET, &path).await?;
        if response.status == StatusCode::NOT_FOUND {
            let problem = format!(
                "the App is not installed there (404); install it at {account}{also}, with write \
                 access to Administration (repositories) or Self-hosted runners (organizations)"
            );
            return Err(Error::new(ErrorKind::NotFound, &call, problem));
        }
        let reply: Reply = client.read(&call, &response, StatusCode::OK)?;
        self.look_ups.succeeded(target, &[Problem::NotIssued]);
        // A repository that was transferred has the installation of its new owner.
        let owner = reply.account.and_then(|account| account.login);
        if owner.is_none_or(|owner| owner.eq_ignore_ascii_case(account)) {
            self.accounts().insert(account.to_owned(), reply.id);
        }
        Ok(reply.id)
    }

    /// Sends a request as the App itself.
    pub(super) async fn send(
        &self,
        client: &Client,
        call: &str,
        method: Method,
        path: &str,
    ) -> Result<Response, Error> {
        let response = client.send_as(call, &method, path, None, &self.sign(call).await?).await?;
        client.budgets.record("", &response);
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let ahead = seconds(sender_now(&response.headers, SystemTime::now())) - now();
        let before = self.clock_skew.swap(ahead, Ordering::Relaxed);
        if (ahead - before).abs() > CLOCK_SKEW_MAX {
            tracing::warn!(
                seconds = ahead,
                "GitHub's clock is ahead of ours: check this machine's"
            );
            return client.send_as(call, &method, path, None, &self.sign(call).await?).await;
        }
        let problem = "the App's key was refused by GitHub (401); check app_id, app_private_key \
                       and this machine's clock";
        Err(Error::new(ErrorKind::Unauthorized, call, problem))
    }

    async fn sign(&self, call: &str) -> Result<SecretString, Error> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            iat: i64,
            exp: i64,
        }
        let now = now() + self.clock_skew.load(Ordering::Relaxed);
        let claims = Claims { iss: &self.id, iat: now - JWT_AGE, exp: now + JWT_LIFE };
        let token = SigningKey::from_pem(&self.key.get().await).and_then(|key| key.sign(&claims));
        token.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, call, "the App's private key cannot sign")
        })
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same(cached: &Token, token: &SecretString) -> bool {
    cached.secret.expose_secret() == token.expose_secret()
}

/// The account whose installation serves a target.
pub(super) fn account(target: &Target) -> Result<&str, Error> {
    match target {
        Target::Repository { owner, .. } => Ok(owner),
        Target::Organization(name) => Ok(name),
        Target::Enterprise(_) => Err(Error::new(
            ErrorKind::Forbidden,
            &format!("managing runners of {target}"),
            "a GitHub App cannot register runners of an enterprise: add it to the targets of one \
             of [[credentials]] that has a token",
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
