//! Sends what GitHub would send.

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
    config::Config,
    http_client::{HttpClient, HttpError, USER_AGENT},
};

/// GitHub's own.
const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Delivery<'a> {
    pub(super) url: &'a str,
    pub(super) event: &'a str,
    pub(super) payload: Bytes,
}

pub(super) struct Answer {
    pub(super) guid: String,
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Answer {
    /// What to do about one that tells of no success.
    pub(super) fn remedy(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "correct the payload, as the answer says",
            StatusCode::UNAUTHORIZED => {
                "the filter has another secret: give Envoy and github.webhook_secret the same"
            }
            StatusCode::FORBIDDEN => {
                "Envoy takes webhooks from GitHub's addresses alone, or the hook none of this \
                 repository: have GitHub send one, with `edgerunner webhook ping` for instance"
            }
            StatusCode::NOT_FOUND => {
                "no webhook is received on that path: it is /webhooks/github, with the hook's \
                 name behind it if it has one"
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                "Envoy has no filter, or the filter no sidecar: see the log of Envoy, and \
                 whether `edgerunner serve` runs"
            }
            _ => "does the URL lead to Envoy?",
        }
    }
}

pub(super) fn webhook_secret(config: &Config) -> Result<&SecretString> {
    config.github.webhook_secret.as_ref().context(
        "set github.webhook_secret, GITHUB_WEBHOOK_SECRET or GITHUB_WEBHOOK_SECRET_FILE to the \
         secret of the webhook",
    )
}

pub(super) fn webhook_url<'a>(config: &'a Config, given: Option<&'a str>) -> Result<&'a str> {
    given.or(config.github.webhook_url.as_deref()).context(
        "give --url, or set github.webhook_url or GITHUB_WEBHOOK_URL: where GitHub sends \
         webhooks to, such as https://hooks.example.com/webhooks/github",
    )
}

impl Delivery<'_> {
    /// Signed with the secret of the configuration, under a GUID of its own.
    pub(super) async fn send(self, config: &Config) -> Result<Answer> {
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
            .context("the URL or the event is not one")?;
        let ca = config.github.certificates()?;
        let client = HttpClient::new(request.uri(), &ca, None, TIMEOUT);
        let client = client.map_err(|problem| anyhow!(problem))?;
        match client.send_within(TIMEOUT, request, ANSWER_BYTES_MAX).await {
            Ok(answer) => {
                let (status, body) = (answer.status(), answer.into_body());
                Ok(Answer { guid, status, body: String::from_utf8_lossy(&body).into_owned() })
            }
            Err(error @ HttpError::TimedOut(_)) => Err(error).with_context(|| {
                format!("{url} gave no answer within {TIMEOUT:?}, for which GitHub waits")
            }),
            Err(error) => Err(error).with_context(|| {
                format!("nothing answers at {url}: does Envoy run, and is that its address?")
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
    fn a_signature_is_as_github_documents_it() {
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        assert_eq!(
            super::signature("It's a Secret to Everybody", b"Hello, World!").unwrap(),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
