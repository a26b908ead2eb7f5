//! Why a call to GitHub failed, and what to do about it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use rustls::CertificateError;
use serde::Deserialize;

use super::{rate_limit, response::Response};
use crate::http_client::HttpError;

/// Why a call failed: the distinctions that callers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorKind {
    /// 401: the token is wrong, expired or revoked.
    Unauthorized,
    /// 403 without any sign of a rate limit, or 451.
    Forbidden,
    RateLimited,
    /// 404 or 410: absent, or hidden from this token.
    NotFound,
    /// 409: a runner of that name is registered.
    NameTaken,
    /// 422 or 400: GitHub understood the request and rejected it.
    Invalid,
    Server,
    /// No response. GitHub may or may not have received the request.
    Unreachable,
    TimedOut,
    /// A status or a body that GitHub does not document for the call, such as a redirect to
    /// another host or a web page.
    UnexpectedResponse,
}

impl ErrorKind {
    /// Whether another credential may be answered otherwise.
    pub(crate) fn may_differ_by_credential(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Forbidden | Self::NotFound | Self::RateLimited)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub kind: ErrorKind,
    /// How long GitHub asks callers with this credential to wait.
    pub retry_after: Option<Duration>,
    /// One line: the call, what went wrong, what to do. Never a credential.
    pub message: String,
}

impl Error {
    /// `call` says what was attempted: "removing runner 7 of org:acme".
    pub(super) fn new(kind: ErrorKind, call: &str, problem: impl std::fmt::Display) -> Self {
        Self { kind, retry_after: None, message: format!("{call}: {problem}") }
    }

    pub(super) fn timed_out(call: &str, limit: Duration) -> Self {
        let problem =
            format_args!("no answer within {limit:?}; GitHub may still have processed the request");
        Self::new(ErrorKind::TimedOut, call, problem)
    }

    pub(super) fn paused(call: &str, left: Duration) -> Self {
        let seconds = left.as_secs() + 1;
        let problem =
            format_args!("not sent, because GitHub asked this credential to wait {seconds} s more");
        Self { retry_after: Some(left), ..Self::new(ErrorKind::RateLimited, call, problem) }
    }

    pub(super) fn unreachable(call: &str, error: &HttpError) -> Self {
        let error: &(dyn std::error::Error + 'static) = error;
        let causes = || std::iter::successors(Some(error), |error| error.source());
        // The wrappers' texts say little.
        let innermost = causes().last().unwrap_or(error);
        let advice = match certificate_error(innermost) {
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "it is signed by an unknown CA: set ca_file to a file with that CA's certificate"
            }
            Some(_) => "check api_url and the certificate there",
            // hyper-util does not export this error's type.
            None if causes().any(|cause| cause.to_string().starts_with("tunnel error")) => {
                "check the proxy (proxy_url or HTTPS_PROXY) and whether it allows api_url"
            }
            None => "check the network and api_url",
        };
        let problem = format_args!("no answer from GitHub ({innermost}); {advice}");
        Self::new(ErrorKind::Unreachable, call, problem)
    }

    pub(super) fn unexpected(call: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::UnexpectedResponse, call, problem)
    }

    /// `response`: a redirect. `problem` says where it leads and why it is not followed.
    pub(super) fn redirected(
        call: &str,
        response: &Response,
        problem: impl std::fmt::Display,
    ) -> Self {
        let code = response.status.as_u16();
        Self::unexpected(call, format_args!("redirected by GitHub ({code}) {problem}"))
    }

    /// `is_app`: the credential is a GitHub App.
    pub(super) fn from_response(
        call: &str,
        response: &Response,
        is_app: bool,
        now: SystemTime,
    ) -> Self {
        use ErrorKind::{
            Forbidden, Invalid, NameTaken, NotFound, RateLimited, Server, Unauthorized,
            UnexpectedResponse,
        };
        const RATE_LIMITED: (ErrorKind, &str, &str) =
            (RateLimited, "GitHub's rate limit is reached", "fewer runners need fewer requests");
        let status = response.status;
        let message = ErrorMessage::read(&response.headers, &response.body);
        let wait = rate_limit::wait(status, &response.headers, message.text(), now);
        let (kind, problem, advice) = match status {
            StatusCode::TOO_MANY_REQUESTS => RATE_LIMITED,
            StatusCode::FORBIDDEN if wait.is_some() => RATE_LIMITED,
            StatusCode::UNAUTHORIZED if is_app => (
                Unauthorized,
                "token refused by GitHub",
                "check this machine's clock, and that the App is still installed",
            ),
            StatusCode::UNAUTHORIZED => (
                Unauthorized,
                "token refused by GitHub",
                "it is wrong, expired or revoked: replace it",
            ),
            status if status.is_client_error() && is_web_page(response) => (
                UnexpectedResponse,
                "unexpected answer",
                "check api_url, and whether something answers in GitHub's place",
            ),
            StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
                let advice = advice_if_forbidden(status, message.text(), is_app);
                (Forbidden, "forbidden by GitHub", advice)
            }
            StatusCode::NOT_FOUND if is_app => (
                NotFound,
                "not found, or hidden from this App",
                "check the name, the App's permissions, and that its installation has access to \
                 this repository",
            ),
            StatusCode::NOT_FOUND => (
                NotFound,
                "not found, or hidden from this token",
                "check the name and the token's permissions",
            ),
            StatusCode::GONE => (
                NotFound,
                "no longer at GitHub",
                "check whether it was deleted, or whether Actions are disabled there",
            ),
            StatusCode::CONFLICT => (
                NameTaken,
                "a runner with this name exists",
                "use another name, or remove that runner",
            ),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => (
                Invalid,
                "rejected by GitHub",
                "correct the pool's labels, runner group or name, or the webhook's URL",
            ),
            status if status.is_server_error() => {
                (Server, "GitHub has a problem", "see githubstatus.com if it lasts")
            }
            _ => (UnexpectedResponse, "unexpected answer", "check api_url"),
        };
        let (code, message) = (status.as_u16(), message.text());
        let pause = wait.map(|wait| format!("; GitHub asks to wait {} s", wait.as_secs()));
        let pause = pause.unwrap_or_default();
        let moved = response.moved.as_ref().map(|moved| format!("; {moved}")).unwrap_or_default();
        let problem = format_args!("{problem} ({code}: {message}); {advice}{pause}{moved}");
        Self { retry_after: wait, ..Self::new(kind, call, problem) }
    }

    /// Servers may echo what they were sent; no credential may reach a log that way.
    pub(super) fn redacted(mut self, secret: &str) -> Self {
        if !secret.is_empty() && self.message.contains(secret) {
            self.message = self.message.replace(secret, "[redacted]");
        }
        self
    }
}

/// What to do about a refusal. GitHub's message says more than its status: often the credential
/// is not at fault.
fn advice_if_forbidden(status: StatusCode, message: &str, is_app: bool) -> &'static str {
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    if status == StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS || says("access blocked") {
        "access blocked: GitHub has disabled this repository; see the notice on its page"
    } else if says("archived") {
        "it is read-only: unarchive the repository, or take it out of the configuration"
    } else if says("suspended") && is_app {
        "the App is suspended there: unsuspend it in the account's settings, under GitHub Apps"
    } else if says("suspended") {
        "the account that owns the token is suspended: use another account's token"
    } else if says("saml") {
        "authorize the credential for the organization's single sign-on"
    } else if says("ip allow list") || says("ip address") {
        "add this machine's address to the organization's IP allow list"
    } else if is_app {
        "give the App write access to Administration (repositories) or Self-hosted runners \
         (organizations), and accept the new permissions where it is installed"
    } else {
        "give the token access to self-hosted runners here, and to the runner group"
    }
}

/// Whether the body is HTML, as that of a proxy, a login page or an outage.
pub(super) fn is_web_page(response: &Response) -> bool {
    let kind = response.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let body = response.body.trim_ascii_start();
    !body.is_empty()
        && (body.starts_with(b"<") || kind.is_some_and(|kind| kind.starts_with("text/html")))
}

/// What is wrong with the server's certificate, if that is why there is no connection.
fn certificate_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // An I/O error does not list the error that it wraps among its sources.
    certificate_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

/// The message in the body of a failed call, on one line.
struct ErrorMessage(String);

impl ErrorMessage {
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
            Err(_) if body.is_empty() => "empty answer".to_owned(),
            // The page of a proxy or of an outage: its type and size say enough.
            Err(_) => {
                let kind = headers
                    .get(header::CONTENT_TYPE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("no content type");
                format!("{kind} instead of GitHub's JSON, {} bytes", body.len())
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

/// `errors` is one text, or a list of texts and objects.
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
