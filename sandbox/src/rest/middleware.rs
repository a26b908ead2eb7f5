//! The middleware of the REST API: records each request, applies faults, authentication and rate
//! limits, and adds GitHub's headers to the response.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use sha2::Digest as _;

use super::error::{ApiError, DOCUMENTATION};
use super::identity::{self, Identity};
use super::target;
use crate::app::App;
use crate::call::Call;
use crate::faults::{Fault, RequestEffect, RetryAfter};
use crate::rate_limit::RateLimitBucket;

const BODY_BYTES_MAX: usize = 1024 * 1024;
const API_VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];
const SECONDARY_LIMIT: &str =
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
const NO_USER_AGENT: &str = "\r\nRequest forbidden by administrative rules. Please make sure your request has a User-Agent header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check https://developer.github.com for other possible causes.\r\n";
const RATE_LIMITS: &str =
    "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api";

/// An extension of a response that must not be sent: close the connection instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseConnection;

pub(super) async fn handle(
    Shared(app): Shared<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return close();
    };
    let path = parts.uri.path().to_owned();
    let token = app.read(|state| identity::token_index(state, &parts.headers));
    let call = Call {
        at: Timestamp::now(),
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: without_credentials(&parts.headers),
        token,
        body: String::from_utf8_lossy(&body).into_owned(),
        status: None,
    };
    let bucket = app.read(|state| identity::bucket(state, &parts.headers));
    let (index, effect) = app.update(|state| {
        state.calls.push(call);
        let effect = state.faults.on_request(parts.method.as_str(), &path, token);
        (state.calls.len() - 1, effect)
    });
    let if_none_match = parts.headers.get(header::IF_NONE_MATCH).cloned();
    let method = parts.method.clone();
    let request = Request::from_parts(parts, Body::from(body));
    let response = respond(&app, effect, bucket, request, next);
    let Some(response) = app.stop.run_until_cancelled(response).await else {
        return close();
    };
    if response.extensions().get::<CloseConnection>().is_some() {
        return response;
    }
    let response = finalize(&app, response, bucket, &method, if_none_match).await;
    app.update(|state| {
        if let Some(call) = state.calls.get_mut(index) {
            call.status = Some(response.status().as_u16());
        }
    });
    response
}

async fn respond(
    app: &Arc<App>,
    effect: RequestEffect,
    bucket: RateLimitBucket,
    mut request: Request,
    next: Next,
) -> Response {
    if effect.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(effect.latency_ms)).await;
    }
    let fault = match effect.fault {
        None => None,
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Close { performed: false }) => return close(),
        Some(fault @ (Fault::Close { performed: true } | Fault::LinkElsewhere { .. })) => {
            Some(fault)
        }
        Some(fault) => return error_response(app, bucket, fault),
    };
    let identity = match check(app, bucket, request.headers(), request.uri().path()) {
        Ok(identity) => identity,
        Err(rejection) => return rejection.into_response(),
    };
    let rejected =
        target::reject(app, identity, request.method(), request.uri(), request.headers());
    if let Some(response) = rejected {
        return response;
    }
    request.extensions_mut().insert(identity);
    request.extensions_mut().insert(bucket);
    let mut response = next.run(request).await;
    match fault {
        Some(Fault::Close { .. }) => close(),
        Some(Fault::LinkElsewhere { origin }) => {
            replace_link_origin(&mut response, &origin);
            response
        }
        _ => response,
    }
}

fn close() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(CloseConnection);
    response
}

fn error_response(app: &Arc<App>, bucket: RateLimitBucket, fault: Fault) -> Response {
    match fault {
        Fault::Unauthorized => ApiError::bad_credentials().into_response(),
        Fault::Forbidden { retry_after } => secondary_limit(StatusCode::FORBIDDEN, retry_after),
        Fault::TooManyRequests { retry_after } => {
            secondary_limit(StatusCode::TOO_MANY_REQUESTS, retry_after)
        }
        Fault::RateLimited { reset_seconds } => {
            app.update(|state| {
                let window = state.rate_window(bucket);
                window.used = window.limit;
                window.reset_at =
                    Timestamp::now() + SignedDuration::from_secs(reset_seconds.into());
            });
            primary_limit().into_response()
        }
        Fault::NotFound => ApiError::not_found().into_response(),
        Fault::Conflict => {
            ApiError::new(StatusCode::CONFLICT, "Conflict", DOCUMENTATION).into_response()
        }
        Fault::UnprocessableEntity => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Validation Failed",
            DOCUMENTATION,
        )
        .into_response(),
        Fault::ServerError => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Html("<!DOCTYPE html>\n<html><body><h1>500</h1>Looks like something went wrong!</body></html>\n"),
        )
            .into_response(),
        Fault::WebPage => {
            Html("<!DOCTYPE html>\n<html><body><h1>Please log in</h1></body></html>\n")
                .into_response()
        }
        // The caller handles these.
        Fault::Latency { .. } | Fault::Hang | Fault::Close { .. } | Fault::LinkElsewhere { .. } => {
            close()
        }
    }
}

fn secondary_limit(status: StatusCode, retry_after: RetryAfter) -> Response {
    let mut response = ApiError::new(status, SECONDARY_LIMIT, RATE_LIMITS).into_response();
    let value = match retry_after {
        RetryAfter::None => return response,
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::Date(seconds) => {
            http_date(Timestamp::now() + SignedDuration::from_secs(seconds.into()))
        }
    };
    insert(response.headers_mut(), header::RETRY_AFTER, &value);
    response
}

fn http_date(time: Timestamp) -> String {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default()
}

fn primary_limit() -> ApiError {
    let message = "API rate limit exceeded for user ID 583231.";
    ApiError::new(StatusCode::FORBIDDEN, message, RATE_LIMITS)
}

/// Replaces the origin of the URLs in the `Link` header.
fn replace_link_origin(response: &mut Response, origin: &str) {
    let link =
        response.headers().get(header::LINK).and_then(|link| link.to_str().ok()).map(|link| {
            link.split("http://")
                .map(|part| part.split_once('/').map_or(part, |(_, rest)| rest))
                .collect::<Vec<_>>()
                .join(&format!("{origin}/"))
        });
    if let Some(link) = link {
        insert(response.headers_mut(), header::LINK, &link);
    }
}

enum Rejection {
    NoUserAgent,
    Api(ApiError),
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::NoUserAgent => (StatusCode::FORBIDDEN, NO_USER_AGENT).into_response(),
            Self::Api(error) => error.into_response(),
        }
    }
}

fn check(
    app: &Arc<App>,
    bucket: RateLimitBucket,
    headers: &HeaderMap,
    path: &str,
) -> Result<Identity, Rejection> {
    if headers.get(header::USER_AGENT).is_none_or(HeaderValue::is_empty) {
        return Err(Rejection::NoUserAgent);
    }
    let version = headers.get("x-github-api-version").and_then(|value| value.to_str().ok());
    if let Some(version) = version
        && !API_VERSIONS.contains(&version)
    {
        return Err(Rejection::Api(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("Version {version} is not supported, please use {}.", API_VERSIONS[0]),
            "https://docs.github.com/rest/about-the-rest-api/api-versions",
        )));
    }
    let identity = Identity::of(app, headers).map_err(Rejection::Api)?;
    // Requests for the rate limit are free.
    if path.ends_with("/rate_limit") {
        return Ok(identity);
    }
    let exhausted = app.update(|state| {
        let window = state.rate_window(bucket);
        let exhausted = window.remaining() == 0;
        if !exhausted {
            window.used += 1;
        }
        exhausted
    });
    match exhausted {
        true => Err(Rejection::Api(primary_limit())),
        false => Ok(identity),
    }
}

async fn finalize(
    app: &Arc<App>,
    response: Response,
    bucket: RateLimitBucket,
    method: &Method,
    if_none_match: Option<HeaderValue>,
) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(mut body) = to_bytes(body, usize::MAX).await else {
        return close();
    };
    let json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if json {
        insert(&mut parts.headers, header::CONTENT_TYPE, "application/json; charset=utf-8");
    }
    if method == Method::GET && parts.status == StatusCode::OK {
        let etag = format!("W/\"{}\"", hex::encode(sha2::Sha256::digest(&body)));
        if if_none_match.is_some_and(|value| value.as_bytes() == etag.as_bytes()) {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers.remove(header::CONTENT_TYPE);
            body.clear();
            // 304 responses do not count against the rate limit.
            app.update(|state| {
                let window = state.rate_window(bucket);
                window.used = window.used.saturating_sub(1);
            });
        }
        insert(&mut parts.headers, header::ETAG, &etag);
        insert(&mut parts.headers, header::CACHE_CONTROL, "private, max-age=60, s-maxage=60");
    }
    let window = app.update(|state| *state.rate_window(bucket));
    for (name, value) in [
        ("x-ratelimit-limit", window.limit.to_string()),
        ("x-ratelimit-remaining", window.remaining().to_string()),
        ("x-ratelimit-used", window.used.to_string()),
        ("x-ratelimit-reset", window.reset_at.as_second().to_string()),
        ("x-ratelimit-resource", "core".to_owned()),
        ("x-github-request-id", request_id()),
        ("x-github-media-type", "github.v3; format=json".to_owned()),
        ("x-github-api-version-selected", API_VERSIONS[0].to_owned()),
    ] {
        insert(&mut parts.headers, HeaderName::from_static(name), &value);
    }
    Response::from_parts(parts, Body::from(body))
}

fn request_id() -> String {
    let part = || format!("{:04X}", fastrand::u16(..));
    [part(), part() + &part(), part() + &part(), part() + &part(), part() + &part()].join(":")
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn without_credentials(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = match name == header::AUTHORIZATION {
                true => text.split(' ').next().unwrap_or_default().to_owned(),
                false => text.into_owned(),
            };
            (name.to_string(), text)
        })
        .collect()
}
