//! Sends requests to one GitHub with a given token: limits, retries and the `ETag` cache.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    budget::{Budgets, endpoint},
    error::{Error, ErrorKind, is_web_page},
    etag_cache::EtagCache,
    link,
    moved::{AllMoved, Moved, has_id, subject},
    rate_limit::Pause,
    response::Response,
    spending::{Outcome, Purpose, Spending},
};
use crate::{
    config::{CredentialConfig, Identity},
    http_client::{HttpClient, USER_AGENT},
    telemetry::metrics,
};

/// GitHub refuses more than 100 concurrent requests with one credential, and others may use
/// the same one.
const CALLS_AT_ONCE_MAX: usize = 20;

/// A page of 100 runners is about 100 KB.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// For requests that may be repeated. The time limit covers all attempts together.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_times(2)
    .with_jitter();

#[derive(Clone)]
pub(super) struct Client {
    /// The credential's name, for metrics.
    name: Arc<str>,
    /// Whether the credential is a GitHub App, for advice.
    is_app: bool,
    purpose: Purpose,
    http: HttpClient,
    base: Uri,
    /// For one call, from sending it to the end of the response.
    timeout: Duration,
    calls: Arc<Semaphore>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) spending: Arc<Spending>,
    moved: Arc<AllMoved>,
    etags: Arc<EtagCache>,
    pause: Arc<Pause>,
}

impl Client {
    pub(super) fn new(credential: &CredentialConfig, timeout: Duration) -> Result<Self, Error> {
        let CredentialConfig { name, api_url, identity, ca, proxy, .. } = credential;
        let base = base_url(api_url)?;
        let http = HttpClient::new(&base, ca, proxy.as_ref(), timeout)
            .map_err(|problem| Error::new(ErrorKind::Invalid, "configuration", problem))?;
        Ok(Self {
            name: name.as_str().into(),
            is_app: matches!(identity, Identity::App { .. }),
            purpose: Purpose::Other,
            http,
            base,
            timeout,
            calls: Arc::new(Semaphore::new(CALLS_AT_ONCE_MAX)),
            budgets: Arc::default(),
            spending: Arc::default(),
            moved: Arc::default(),
            etags: Arc::new(EtagCache::new()),
            pause: Arc::default(),
        })
    }

    /// The same, with requests counted for this purpose.
    pub(super) fn with_purpose(&self, purpose: Purpose) -> Self {
        Self { purpose, ..self.clone() }
    }

    /// Whether GitHub asked callers with this credential to wait.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.remaining().is_some()
    }

    pub(super) fn next_page(
        &self,
        call: &str,
        response: &Response,
    ) -> Result<Option<String>, Error> {
        link::next(&response.headers, &self.base)
            .map_err(|problem| Error::unexpected(call, problem))
    }

    /// Sends a request with this token. `call` names the request in errors; `path` is relative
    /// to the base URL. One redirect below the base URL is followed. Returns responses of every
    /// status except server errors, other redirects, and web pages in place of GitHub's answer.
    pub(super) async fn send_as(
        &self,
        call: &str,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        token: &SecretString,
    ) -> Result<Response, Error> {
        // It is never closed.
        let _permit = self.calls.acquire().await;
        if let Some(left) = self.pause.remaining() {
            return Err(Error::paused(call, left));
        }
        let started = Instant::now();
        let request = RequestParts { call, method, body: body.as_ref(), token };
        let result = self.follow(&request, path).await;
        let result = result.and_then(|response| self.answer_of_github(call, response));
        if let Ok(response) = &result
            && let Some(wait) = self.limited(call, response)
        {
            self.pause.extend(wait);
        }
        tracing::debug!(
            %method,
            path,
            status = result.as_ref().ok().map(|response| response.sent_status().as_u16()),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "GitHub call",
        );
        result.map_err(|error| error.redacted(token.expose_secret()))
    }

    /// Follows one redirect: GitHub redirects a repository that was renamed or transferred.
    async fn follow(&self, request: &RequestParts<'_>, path: &str) -> Result<Response, Error> {
        let redirect = self.repeat(request, path).await?;
        if !is_redirect(redirect.status) {
            return Ok(redirect);
        }
        let to = match self.location(&redirect) {
            Ok(to) => to,
            Err(problem) => return Err(Error::redirected(request.call, &redirect, problem)),
        };
        let mut response = self.repeat(request, &to).await?;
        let moved = self.moved(request, subject(path), subject(&to)).await;
        if is_redirect(response.status) {
            let problem = format_args!("a second redirect, which is not followed; {moved}");
            return Err(Error::redirected(request.call, &response, problem));
        }
        response.moved = Some(moved);
        Ok(response)
    }

    /// Where a redirect leads, relative to the base URL. The request carries the token, so no
    /// response may send it elsewhere.
    fn location(&self, redirect: &Response) -> Result<String, String> {
        let location = redirect.headers.get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let location = location.ok_or("to nowhere: it names no location")?;
        link::within(location, &self.base)
            .map_err(|place| format!("to {place}, outside of api_url: not followed"))
    }

    /// What moved, and its new name: found out with at most one request, and logged, once.
    async fn moved(&self, request: &RequestParts<'_>, from: &str, to: &str) -> Arc<Moved> {
        if let Some(known) = self.moved.get(from, to) {
            return known;
        }
        let name = if has_id(to) { self.name_at(request, to).await } else { None };
        let moved = self.moved.add(from, to, name);
        tracing::warn!(
            from = moved.from,
            to = moved.to,
            "GitHub redirects this repository or organization, which was renamed or transferred: \
             use its current name in the configuration"
        );
        moved
    }

    async fn name_at(&self, request: &RequestParts<'_>, path: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Reply {
            full_name: Option<String>,
            login: Option<String>,
        }
        let RequestParts { call, token, .. } = *request;
        let get = RequestParts { call, method: &Method::GET, body: None, token };
        let exchange = self.exchange(&get, path);
        let response = timeout(self.timeout, exchange).await.ok()?.ok()?;
        let reply: Reply = self.read(call, &response, StatusCode::OK).ok()?;
        reply.full_name.or(reply.login)
    }

    /// Sends a request until there is an answer, if repeating it is harmless. Server errors are
    /// errors.
    async fn repeat(&self, request: &RequestParts<'_>, path: &str) -> Result<Response, Error> {
        let once = || async {
            let response = self.exchange(request, path).await?;
            match response.status.is_server_error() {
                true => Err(self.error(request.call, &response)),
                false => Ok(response),
            }
        };
        let mut last = None;
        let exchange = once
            .retry(RETRIES)
            .when(|error| is_repeatable(request.method, path) && is_transient(error))
            .notify(|error, _| last = Some(error.clone()));
        match timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or_else(|| Error::timed_out(request.call, self.timeout))),
        }
    }

    /// Refuses an answer that is no answer of GitHub's, such as the page of a proxy: its status
    /// says nothing about what was requested.
    fn answer_of_github(&self, call: &str, response: Response) -> Result<Response, Error> {
        if response.status.is_client_error() {
            let error = self.error(call, &response);
            if error.kind == ErrorKind::UnexpectedResponse {
                return Err(error);
            }
        }
        Ok(response)
    }

    pub(super) fn read<T: DeserializeOwned>(
        &self,
        call: &str,
        response: &Response,
        expected: StatusCode,
    ) -> Result<T, Error> {
        if response.status != expected {
            return Err(self.error(call, response));
        }
        serde_json::from_slice(&response.body).map_err(|error| {
            let status = expected.as_u16();
            if is_web_page(response) {
                let problem = format_args!(
                    "{status} with a web page instead of GitHub's JSON; check api_url, and \
                     whether something answers in GitHub's place"
                );
                return Error::unexpected(call, problem);
            }
            // serde's message may quote a value, and responses contain credentials.
            let (line, column) = (error.line(), error.column());
            let problem = format_args!(
                "{status} with a body that GitHub does not document (line {line}, column {column})"
            );
            Error::unexpected(call, problem)
        })
    }

    pub(super) fn error(&self, call: &str, response: &Response) -> Error {
        Error::from_response(call, response, self.is_app, SystemTime::now())
            .redacted(response.token.expose_secret())
    }

    /// How long GitHub asks callers with this credential to wait.
    fn limited(&self, call: &str, response: &Response) -> Option<Duration> {
        let refused =
            matches!(response.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        refused.then(|| self.error(call, response).retry_after).flatten()
    }

    /// Sends a request once, and counts it.
    async fn exchange(&self, request: &RequestParts<'_>, path: &str) -> Result<Response, Error> {
        let result = self.exchange_uncounted(request, path).await;
        let status = result.as_ref().ok().map(Response::sent_status);
        metrics::github_call(&self.name, endpoint(path), status);
        if let Some(outcome) = Outcome::of(status) {
            let (purpose, outcome_name) = (self.purpose.as_str(), outcome.as_str());
            metrics::github_budget_spent(&self.name, purpose, outcome_name, 1);
            self.spending.record(self.purpose, outcome, Instant::now());
        }
        result
    }

    async fn exchange_uncounted(
        &self,
        request: &RequestParts<'_>,
        path: &str,
    ) -> Result<Response, Error> {
        let RequestParts { call, method, token, .. } = *request;
        let body = request.body.cloned();
        let invalid =
            |problem: &dyn std::fmt::Display| Error::new(ErrorKind::Invalid, call, problem);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| {
                invalid(&"the token contains invalid characters; check for a line break")
            })?;
        bearer.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(self.url(path).map_err(|error| invalid(&error))?)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::AUTHORIZATION, bearer)
            .header(header::USER_AGENT, USER_AGENT)
            .header("x-github-api-version", "2022-11-28");
        request = match &body {
            Some(_) => request.header(header::CONTENT_TYPE, "application/json"),
            // hyper leaves it out, and GitHub rejects a POST without it with 411.
            None => request.header(header::CONTENT_LENGTH, 0),
        };
        let cached = (method == Method::GET).then(|| self.etags.get(path)).flatten();
        if let Some(cached) = &cached {
            request = request.header(header::IF_NONE_MATCH, &cached.etag);
        }
        let request = request.body(body.unwrap_or_default().into()).map_err(|it| invalid(&it))?;
        let response = self.http.send(request, RESPONSE_BYTES_MAX).await;
        let (head, body) = response.map_err(|error| Error::unreachable(call, &error))?.into_parts();
        let (status, mut headers, token) = (head.status, head.headers, token.clone());
        Ok(match cached {
            Some(cached) if status == StatusCode::NOT_MODIFIED => {
                let (status, body) = cached.confirmed(&mut headers);
                Response { status, headers, body, unchanged: true, moved: None, token }
            }
            _ => {
                if method == Method::GET && status == StatusCode::OK {
                    self.etags.store(path, &headers, &body);
                }
                Response { status, headers, body, unchanged: false, moved: None, token }
            }
        })
    }

    /// Whatever `path` is, the request goes to the host of the base URL.
    fn url(&self, path: &str) -> Result<Uri, http::Error> {
        let path = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path.parse()?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// A request, except for its path.
struct RequestParts<'a> {
    /// Names the request in errors.
    call: &'a str,
    method: &'a Method,
    body: Option<&'a Bytes>,
    token: &'a SecretString,
}

/// The body of a request.
pub(super) fn json(call: &str, body: &impl Serialize) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(body);
    body.map(Bytes::from).map_err(|error| Error::new(ErrorKind::Invalid, call, error))
}

fn base_url(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .filter(|uri| {
            uri.query().is_none()
                && !uri.authority().is_some_and(|name| name.as_str().contains('@'))
        })
        .ok_or_else(|| {
            let problem =
                "api_url is not a URL such as https://api.github.com or https://<host>/api/v3";
            Error::new(ErrorKind::Invalid, "configuration", problem)
        })
}

/// Redirects that a request may follow with the same method and body.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 307 | 308)
}

/// Whether repeating a request is harmless. For a JIT configuration it is not: each one
/// registers another runner.
fn is_repeatable(method: &Method, path: &str) -> bool {
    method.is_idempotent()
        || ["/registration-token", "/access_tokens"].iter().any(|end| path.ends_with(end))
}

/// A fault of the network or of GitHub, without a time to come back.
fn is_transient(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Server) && error.retry_after.is_none()
}
