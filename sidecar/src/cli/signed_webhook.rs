//! Signs and sends a webhook the way GitHub does.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    config::{Config, url_problem},
    http_client::{HttpClient, HttpError, USER_AGENT},
};

/// The same as GitHub's.
const TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct SignedWebhook<'a> {
    pub(super) url: &'a str,
    pub(super) event: &'a str,
    pub(super) payload: Bytes,
}

pub(super) struct Response {
    pub(super) guid: String,
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Response {
    pub(super) fn remedy(&self) -> &'static str {
        remedy(self.status)
    }
}

/// How to fix the problem behind an error status.
pub(super) fn remedy(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "fix the payload; the response says what is wrong",
        StatusCode::UNAUTHORIZED => {
            "the filter has a different secret: set the same one for Envoy and as \
             github.webhook_secret"
        }
        StatusCode::FORBIDDEN => {
            "Envoy only accepts webhooks from GitHub's IP ranges, or the hook does not accept \
             this repository: let GitHub send one, for example with `edgerunner webhook ping`"
        }
        StatusCode::NOT_FOUND => {
            "the filter does not receive webhooks on this path: use /webhooks/github, or \
             /webhooks/github/NAME for a hook with a name"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "Envoy did not load the filter, or the filter cannot reach the sidecar: check \
             Envoy's log, and whether `edgerunner serve` is running"
        }
        _ => "check that the URL leads to Envoy",
    }
}

/// Checks the value of `--url`.
pub(super) fn url(text: &str) -> Result<String, String> {
    match url_problem(text) {
        None => Ok(text.to_owned()),
        Some(problem) => {
            Err(format!("{problem}, such as https://hooks.example.com/webhooks/github"))
        }
    }
}

pub(super) fn webhook_secret(config: &Config) -> Result<&SecretString> {
    config.github.webhook_secret.as_ref().context(
        "the webhook secret is missing: set github.webhook_secret, GITHUB_WEBHOOK_SECRET or \
         GITHUB_WEBHOOK_SECRET_FILE",
    )
}

pub(super) fn webhook_url<'a>(config: &'a Config, given: Option<&'a str>) -> Result<&'a str> {
    given.or(config.github.webhook_url.as_deref()).context(
        "the webhook URL is missing: pass --url, or set github.webhook_url or \
         GITHUB_WEBHOOK_URL, for example to https://hooks.example.com/webhooks/github",
    )
}

impl SignedWebhook<'_> {
    /// Signs it with the configured secret and sends it with a new GUID.
    pub(super) async fn send(self, config: &Config) -> Result<Response> {
        let Self { url, event, payload } = self;
        let secret = webhook_secret(config)?.expose_secret();
        let guid = Uuid::new_v4().to_string();
        let request = Request::post(url)
            .header("content-type", "application/json")
            .header("user-agent", USER_AGENT)
            .header("x-github-delivery", &guid)
            .header("x-github-event", event)
            .header("x-hub-signature-256", signature(secret, &payload)?)
            .body(Full::new(payload))
            .context("the URL or the name of the event is invalid")?;
        let ca = config.github.certificates()?;
        let client = HttpClient::new(request.uri(), &ca, None, TIMEOUT);
        let client = client.map_err(|problem| anyhow!(problem))?;
        match client.send_within(TIMEOUT, request, RESPONSE_BYTES_MAX).await {
            Ok(response) => {
                let (status, body) = (response.status(), response.into_body());
                Ok(Response { guid, status, body: String::from_utf8_lossy(&body).into_owned() })
            }
            Err(error @ HttpError::TimedOut(_)) => Err(error).with_context(|| {
                format!("{url} did not respond within {TIMEOUT:?}, which is how long GitHub waits")
            }),
            Err(error) => Err(error).with_context(|| {
                format!("no response from {url}: is Envoy running, and is this its address?")
            }),
        }
    }
}

fn signature(secret: &str, payload: &[u8]) -> Result<String> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?.chain_update(payload);
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn signatures_match_the_example_in_github_s_documentation() {
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        assert_eq!(
            super::signature("It's a Secret to Everybody", b"Hello, World!").unwrap(),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
