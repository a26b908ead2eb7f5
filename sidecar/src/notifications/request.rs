//! A message as an HTTP request, with its signature.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, header};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

use super::Notice;
use crate::{
    config::{NotificationFormat, NotificationsConfig},
    http_client::USER_AGENT,
};
use edgerunner_scheduler::model::UnixMs;

/// As GitHub signs webhooks: `sha256=` and the HMAC of the body in hexadecimal digits.
const SIGNATURE: &str = "x-edgerunner-signature-256";

pub(super) struct Message<'a> {
    /// The same at each attempt.
    pub(super) id: Uuid,
    pub(super) notice: &'a Notice,
    pub(super) instance: &'a str,
    pub(super) suppressed: u64,
}

/// The body in JSON. Receivers depend on these names.
#[derive(Serialize)]
struct Body<'a> {
    id: String,
    kind: &'static str,
    subject: &'a str,
    message: &'a str,
    instance: &'a str,
    at_ms: UnixMs,
    suppressed: u64,
}

impl Message<'_> {
    pub(super) fn request(
        &self,
        config: &NotificationsConfig,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let body = match config.format {
            NotificationFormat::Json => self.json(),
            NotificationFormat::Slack => self.slack(),
        };
        let mut request = Request::post(&config.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(secret) = &config.secret {
            request = request.header(SIGNATURE, signature(secret, body.as_bytes()));
        }
        request.body(Full::from(body))
    }

    fn json(&self) -> String {
        let Notice { kind, subject, message, at } = self.notice;
        let body = Body {
            id: self.id.to_string(),
            kind: kind.as_str(),
            subject,
            message,
            instance: self.instance,
            at_ms: *at,
            suppressed: self.suppressed,
        };
        // Texts and numbers are always JSON.
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// One text. What GitHub reports must not become a link or a mention.
    fn slack(&self) -> String {
        let others = match self.suppressed {
            0 => String::new(),
            others => format!(" ({others} more since the last message)"),
        };
        let text = format!("{}: {}{others}", self.instance, self.notice.message);
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": text }).to_string()
    }
}

fn signature(secret: &SecretString, body: &[u8]) -> String {
    let key = secret.expose_secret().as_bytes();
    let mac = Hmac::<Sha256>::new_from_slice(key)
        .unwrap_or_else(|error| unreachable!("a key may have any length: {error}"))
        .chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::notifications::Kind;

    async fn sent(format: NotificationFormat, secret: Option<&str>) -> (Request<()>, Value) {
        let notice = Notice {
            kind: Kind::RunnerDied,
            subject: "default".into(),
            message: "runner <!channel> & more".into(),
            at: 7,
        };
        let message = Message { id: Uuid::nil(), notice: &notice, instance: "edge", suppressed: 2 };
        let url = "https://hooks.example.com/a?b=c".parse().unwrap();
        let config = NotificationsConfig { url, secret: secret.map(Into::into), format };
        let (head, body) = message.request(&config).unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Request::from_parts(head, ()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_message_in_json_is_signed_as_github_signs_webhooks() {
        let (head, body) = sent(NotificationFormat::Json, Some("It's a Secret")).await;
        assert_eq!(head.uri(), "https://hooks.example.com/a?b=c");
        let expected = json!({
            "id": "00000000-0000-0000-0000-000000000000", "kind": "runner_died",
            "subject": "default", "message": "runner <!channel> & more", "instance": "edge",
            "at_ms": 7, "suppressed": 2,
        });
        assert_eq!(body, expected);
        assert!(head.headers()[SIGNATURE].to_str().unwrap().starts_with("sha256="));
        let (head, _) = sent(NotificationFormat::Json, None).await;
        assert!(!head.headers().contains_key(SIGNATURE));
    }

    #[test]
    fn the_signature_is_that_of_githubs_own_example() {
        let signed = signature(&"It's a Secret to Everybody".into(), b"Hello, World!");
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(signed, expected);
    }

    #[tokio::test]
    async fn a_message_for_slack_mentions_nobody() {
        let (_, body) = sent(NotificationFormat::Slack, None).await;
        let text = "edge: runner &lt;!channel&gt; &amp; more (2 more since the last message)";
        assert_eq!(body, json!({ "text": text }));
    }
}
