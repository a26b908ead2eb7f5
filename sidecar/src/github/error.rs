use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use rustls::CertificateError;
use serde::Deserialize;

use super::client::Answer;
use super::rate_limit;

/// Why a call failed, as far as the caller may decide on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// 401: the token is wrong, expired or revoked.
    Unauthorized,
    /// 403 with no sign of a rate limit.
    Forbidden,
    RateLimited,
    /// 404: absent, or hidden from this token.
    NotFound,
    /// 409: a runner of that name is registered.
    NameTaken,
    /// 422 or 400: GitHub understood the request and refuses it.
    Invalid,
    Server,
    /// No answer, and GitHub may or may not have seen the request.
    Unreachable,
    TimedOut,
    UnexpectedAnswer,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub cause: Cause,
    /// How long GitHub asks callers of this credential to wait.
    pub retry_after: Option<Duration>,
    /// One line: the call, what came back, what to do. Never a credential.
    pub message: String,
}

impl Error {
    pub(super) fn new(cause: Cause, call: &str, what: impl std::fmt::Display) -> Self {
        Self { cause, retry_after: None, message: format!("GitHub: {call}: {what}") }
    }

    pub(super) fn timed_out(call: &str, timeout: Duration) -> Self {
        Self::new(
            Cause::TimedOut,
            call,
            format_args!("no answer within {timeout:?}; the request may have taken effect"),
        )
    }

    pub(super) fn paused(call: &str, left: Duration) -> Self {
        let what = format_args!(
            "not sent: GitHub has told this credential to wait (for {} s)",
            left.as_secs() + 1
        );
        Self { retry_after: Some(left), ..Self::new(Cause::RateLimited, call, what) }
    }

    /// `error`'s own text and octocrab's wrappers say little: the innermost
    /// cause names what failed.
    pub(super) fn unreachable(call: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = || std::iter::successors(Some(error), |error| error.source());
        let innermost = causes().last().unwrap_or(error);
        let advice = match untrusted(innermost) {
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "no CA that is known here has signed it: name a file with its CA in ca_file"
            }
            Some(_) => "check api_url, and the certificate there",
            // hyper-util does not tell the type.
            None if causes().any(|cause| cause.to_string().starts_with("tunnel error")) => {
                "check the proxy, which is from proxy_url or HTTPS_PROXY, and whether it lets us \
                 through to api_url"
            }
            None => "check the network and api_url",
        };
        Self::new(Cause::Unreachable, call, format_args!("no answer ({innermost}); {advice}"))
    }

    pub(super) fn unexpected(call: &str, what: impl std::fmt::Display) -> Self {
        Self::new(Cause::UnexpectedAnswer, call, what)
    }

    pub(super) fn from_answer(call: &str, answer: &Answer, now: SystemTime) -> Self {
        let status = answer.status;
        let said = Said::read(&answer.headers, &answer.body);
        let limited = rate_limit::wait(status, &answer.headers, said.text(), now);
        let (cause, advice) = match status {
            StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS if limited.is_some() => {
                (Cause::RateLimited, "wait; fewer runners at once need fewer calls")
            }
            StatusCode::TOO_MANY_REQUESTS => (Cause::RateLimited, "wait"),
            StatusCode::UNAUTHORIZED => {
                (Cause::Unauthorized, "the token is wrong, expired or revoked: replace it")
            }
            StatusCode::FORBIDDEN => (
                Cause::Forbidden,
                "give the token the right to manage self-hosted runners here, and to use the runner group",
            ),
            StatusCode::NOT_FOUND => (
                Cause::NotFound,
                "it does not exist, or the token may not see it: check the name and the token's permissions",
            ),
            StatusCode::CONFLICT => (
                Cause::NameTaken,
                "a runner of this name is registered already: use another name or remove it",
            ),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => (
                Cause::Invalid,
                "correct the pool's labels, runner group or name, or the webhook's URL",
            ),
            status if status.is_server_error() => {
                (Cause::Server, "GitHub has a problem; see githubstatus.com if it lasts")
            }
            status if status.is_redirection() => (
                Cause::UnexpectedAnswer,
                "redirects are not followed: configure the present name of the repository or organization",
            ),
            _ => (Cause::UnexpectedAnswer, "check api_url"),
        };
        let status_number = status.as_u16();
        let said = said.text();
        let wait = limited.map(|wait| format!(" (for {} s)", wait.as_secs())).unwrap_or_default();
        let mut error =
            Self::new(cause, call, format_args!("{status_number} {said}; {advice}{wait}"));
        error.retry_after = limited;
        error
    }

    /// A server may echo what it was sent; a credential must not reach a log
    /// that way.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() && self.message.contains(secret) {
            self.message = self.message.replace(secret, "[redacted]");
        }
        self
    }
}

/// What was wrong with a certificate, if that is why there is no connection.
fn untrusted<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // Not among its sources: it is the wrapper's own text.
    untrusted(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

/// What the body of a failed call said, on one line.
struct Said(String);

impl Said {
    const CHARS_MAX: usize = 300;

    fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            message: String,
            #[serde(default)]
            errors: serde_json::Value,
        }
        let text = match serde_json::from_slice::<Body>(body) {
            Ok(Body { message, errors }) => match details(&errors) {
                details if details.is_empty() => message,
                details => format!("{message}: {details}"),
            },
            Err(_) if body.is_empty() => "(empty answer)".to_owned(),
            // A proxy's or an outage's page: its size and type tell as much.
            Err(_) => {
                let kind = headers
                    .get(header::CONTENT_TYPE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("no content type");
                format!("(an answer that is not GitHub's JSON: {kind}, {} bytes)", body.len())
            }
        };
        Self(
            text.chars()
                .map(|char| if char.is_control() { ' ' } else { char })
                .take(Self::CHARS_MAX)
                .collect(),
        )
    }

    fn text(&self) -> &str {
        self.0.trim()
    }
}

/// `errors` is a list of texts or of objects, or one text.
fn details(errors: &serde_json::Value) -> String {
    let one = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Object(fields) => {
            let parts: Vec<&str> = ["field", "code", "message"]
                .iter()
                .filter_map(|name| fields.get(*name)?.as_str())
                .collect();
            (!parts.is_empty()).then(|| parts.join(" "))
        }
        _ => None,
    };
    match errors {
        serde_json::Value::Array(list) => {
            list.iter().filter_map(one).collect::<Vec<_>>().join(", ")
        }
        other => one(other).unwrap_or_default(),
    }
}
