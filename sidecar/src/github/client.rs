use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::budget::{Budgets, endpoint};
use super::error::{Cause, Error};
use super::etag_cache::EtagCache;
use super::identity::Tokens;
use super::pause::Pause;
use super::{Settings, base_url, page, tls};
use crate::telemetry::metrics;
use edgerunner_scheduler::model::Target;

/// GitHub refuses more than 100 at once for everything that uses a credential;
/// we are not alone with it.
const CALLS_AT_ONCE_MAX: usize = 20;

/// A page of 100 runners is about 100 KB.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// 10,000 runners of one target.
pub(super) const PAGES_MAX: usize = 100;

/// Of what may be sent again. The time for one call holds for all of them together.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_times(2)
    .with_jitter();

/// Sends requests to one GitHub with one credential.
#[derive(Clone)]
pub(super) struct Client {
    /// Of the credential.
    name: Arc<str>,
    octocrab: Octocrab,
    base: Uri,
    pub(super) tokens: Arc<Tokens>,
    timeout: Duration,
    calls: Arc<Semaphore>,
    pub(super) budgets: Arc<Budgets>,
    kept: Arc<EtagCache>,
    pause: Arc<Pause>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// GitHub answered 304: status and body are those of the answer that was kept.
    pub(super) unchanged: bool,
    /// What the request came with, which no message may repeat.
    token: SecretString,
}

impl Answer {
    /// The status as it came.
    fn told(&self) -> StatusCode {
        match self.unchanged {
            true => StatusCode::NOT_MODIFIED,
            false => self.status,
        }
    }
}

impl Client {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let Settings { name, api_url, identity, ca, proxy, timeout } = settings;
        let base = base_url(&api_url)?;
        let tokens = Tokens::new(identity)?;
        let mut connector = http_connector(timeout);
        let octocrab = if base.scheme() == Some(&Scheme::HTTP) {
            octocrab(connector, &base)
        } else {
            let tls = tls::client_config(&ca)
                .map_err(|what| Error::new(Cause::Invalid, "configuration", what))?;
            let https =
                HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
            match proxy {
                Some(proxy) => octocrab(https.wrap_connector(proxy.tunnel(connector)), &base),
                None => {
                    connector.enforce_http(false);
                    octocrab(https.wrap_connector(connector), &base)
                }
            }
        };
        let calls = Arc::new(Semaphore::new(CALLS_AT_ONCE_MAX));
        Ok(Self {
            name: name.into(),
            octocrab,
            base,
            tokens: Arc::new(tokens),
            timeout,
            calls,
            pause: Arc::default(),
            budgets: Arc::default(),
            kept: Arc::new(EtagCache::new()),
        })
    }

    pub(super) fn base(&self) -> &Uri {
        &self.base
    }

    /// All pages of a list that begins at `path`.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        call: &str,
        mut path: String,
        target: &Target,
    ) -> Result<Vec<T>, Error> {
        let mut pages = Vec::new();
        for _ in 0..PAGES_MAX {
            let answer = self.send(call, Method::GET, &path, None, target).await?;
            pages.push(self.read(call, &answer, StatusCode::OK)?);
            match page::next(&answer.headers, &self.base) {
                Ok(Some(next)) => path = next,
                Ok(None) => return Ok(pages),
                Err(what) => return Err(Error::unexpected(call, what)),
            }
        }
        Err(Error::unexpected(call, format_args!("more than {PAGES_MAX} pages")))
    }

    /// `call` names the request in errors; `path` is relative to the base URL; `target`
    /// says whose runners or jobs it is about.
    /// Answers of every status are returned but those of a server's own fault.
    pub(super) async fn send(
        &self,
        call: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        target: &Target,
    ) -> Result<Answer, Error> {
        let token = self.tokens.get(self, target).await?;
        let mut answer = self.exchange_in_time(call, &method, path, body.clone(), &token).await?;
        // What was refused for its token has done nothing, so it may be repeated.
        if answer.status == StatusCode::UNAUTHORIZED && self.tokens.refused(&token) {
            let token = self.tokens.get(self, target).await?;
            answer = self.exchange_in_time(call, &method, path, body, &token).await?;
        }
        self.budgets.note(&self.tokens.account(target), &answer);
        Ok(answer)
    }

    pub(super) async fn exchange_in_time(
        &self,
        call: &str,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        token: &SecretString,
    ) -> Result<Answer, Error> {
        let _permit =
            self.calls.acquire().await.map_err(|error| Error::unreachable(call, &error))?;
        if let Some(left) = self.pause.left() {
            return Err(Error::paused(call, left));
        }
        let started = std::time::Instant::now();
        let once = || async {
            let result = self.exchange(call, method, path, body.clone(), token).await;
            let status = result.as_ref().ok().map(Answer::told);
            metrics::github_call(&self.name, endpoint(path), status);
            let answer = result?;
            match answer.status.is_server_error() {
                true => Err(self.error(call, &answer)),
                false => Ok(answer),
            }
        };
        let mut last = None;
        let exchange = once
            .retry(RETRIES)
            .when(|error| may_repeat(method, path) && passes_soon(error))
            .notify(|error, _| last = Some(error.clone()));
        let result = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or_else(|| Error::timed_out(call, self.timeout))),
        };
        if let Ok(answer) = &result
            && let Some(wait) = self.limited(call, answer)
        {
            self.pause.extend(wait);
        }
        tracing::debug!(
            %method,
            path,
            status = result.as_ref().ok().map(|answer| answer.told().as_u16()),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "GitHub call",
        );
        result.map_err(|error| error.without(token.expose_secret()))
    }

    pub(super) fn read<T: DeserializeOwned>(
        &self,
        call: &str,
        answer: &Answer,
        expected: StatusCode,
    ) -> Result<T, Error> {
        if answer.status != expected {
            return Err(self.error(call, answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            // serde's text may quote a value, and answers hold credentials.
            let (line, column) = (error.line(), error.column());
            Error::unexpected(
                call,
                format_args!("{expected} with a body that is not what GitHub documents (line {line}, column {column})"),
            )
        })
    }

    pub(super) fn error(&self, call: &str, answer: &Answer) -> Error {
        Error::from_answer(call, answer, SystemTime::now()).without(answer.token.expose_secret())
    }

    /// How long GitHub asks callers of this credential to wait.
    fn limited(&self, call: &str, answer: &Answer) -> Option<Duration> {
        let refused =
            matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        refused.then(|| self.error(call, answer).retry_after).flatten()
    }

    async fn exchange(
        &self,
        call: &str,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        token: &SecretString,
    ) -> Result<Answer, Error> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| {
                let what = "the token holds characters no token has; check for a line break";
                Error::new(Cause::Invalid, call, what)
            })?;
        bearer.set_sensitive(true);
        // `path` is relative: whatever it is, the request goes to the base URL's host.
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer);
        let request = match &body {
            Some(_) => request.header(header::CONTENT_TYPE, "application/json"),
            // Not implied by an empty body, and a POST without it answers 411.
            None => request.header(header::CONTENT_LENGTH, 0),
        };
        let kept = (method == Method::GET).then(|| self.kept.get(path)).flatten();
        let request = match &kept {
            Some(kept) => request.header(header::IF_NONE_MATCH, &kept.etag),
            None => request,
        };
        let request = request
            .body(body.map_or_else(OctoBody::empty, OctoBody::from))
            .map_err(|error| Error::new(Cause::Invalid, call, error))?;
        let response = self
            .octocrab
            .execute(request)
            .await
            .map_err(|error| Error::unreachable(call, &error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Error::unreachable(call, error.as_ref()))?
            .to_bytes();
        let (status, mut headers, token) = (parts.status, parts.headers, token.clone());
        Ok(match kept {
            Some(kept) if status == StatusCode::NOT_MODIFIED => {
                let (status, body) = kept.confirmed(&mut headers);
                Answer { status, headers, body, unchanged: true, token }
            }
            _ => {
                if method == Method::GET && status == StatusCode::OK {
                    self.kept.keep(path, &headers, &body);
                }
                Answer { status, headers, body, unchanged: false, token }
            }
        })
    }
}

/// Whether it does no harm twice. A JIT configuration does: one more runner is registered.
fn may_repeat(method: &Method, path: &str) -> bool {
    method.is_idempotent()
        || ["/registration-token", "/access_tokens"].iter().any(|end| path.ends_with(end))
}

/// A fault of the network's or of GitHub's, which does not say when to come back.
fn passes_soon(error: &Error) -> bool {
    matches!(error.cause, Cause::Unreachable | Cause::Server) && error.retry_after.is_none()
}

fn http_connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    connector
}

/// octocrab's own `build` always announces itself as `octocrab`, beside any
/// other user agent, and wants CA certificates even for plain HTTP. So its
/// layers are put together here: neither redirects nor retries are among them.
fn octocrab<C>(connector: C, base: &Uri) -> Octocrab
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = HyperClient::builder(TokioExecutor::new()).build::<_, OctoBody>(connector);
    let headers = [
        (header::ACCEPT, "application/vnd.github+json"),
        (HeaderName::from_static("x-github-api-version"), "2022-11-28"),
        (header::USER_AGENT, concat!("edgerunner/", env!("CARGO_PKG_VERSION"))),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let built = OctocrabBuilder::new_empty()
        .with_service(client)
        .with_layer(&ExtraHeadersLayer::new(Arc::new(headers.to_vec())))
        .with_layer(&BaseUriLayer::new(base.clone()))
        .with_auth(AuthState::None)
        .build();
    match built {
        Ok(octocrab) => octocrab,
        Err(never) => match never {},
    }
}
