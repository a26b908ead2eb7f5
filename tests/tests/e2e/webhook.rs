//! Deliveries through Envoy and the filter.

use std::time::Duration;

use anyhow::Result;
use edgerunner_sandbox::JobRequest;
use edgerunner_tests::{
    Answer, Options, SECRET, Stack, Webhook, eventually, hmac_sha1, hmac_sha256, payload, raw,
};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::Instant;

/// GitHub gives up after this.
const GITHUB_TIMEOUT: Duration = Duration::from_secs(10);

fn assert_rejected(answer: &Answer, status: u16, outcome: &str) {
    assert_eq!((answer.status, answer.outcome()), (status, outcome), "{answer:?}");
    assert!(!answer.reason().expect("a reason").is_empty());
}

fn assert_accepted(answer: &Answer) {
    assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");
}

/// The next genuine delivery is accepted.
async fn assert_unharmed(stack: &Stack) -> Result<()> {
    assert_accepted(&stack.send(&Webhook::job(999)).await?);
    Ok(())
}

#[tokio::test]
async fn a_genuine_delivery_is_stored_and_can_be_followed_through_the_logs() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        let delivered = eventually("the delivery is answered", async || {
            let deliveries = stack.sandbox.deliveries();
            Ok(deliveries.into_iter().find(|it| it.action.as_deref() == Some("queued")))
        })
        .await?;
        assert_eq!(delivered.status_code, 202);
        let body: serde_json::Value =
            serde_json::from_str(delivered.response_body.as_deref().unwrap_or_default())?;
        let guid = delivered.guid.as_str();
        assert_eq!(
            body,
            json!({"outcome": "accepted", "delivery": guid, "job": job, "pool": "default"})
        );

        let line = stack.envoy.access_log_line(guid).await?;
        assert_eq!(line["outcome"], "accepted");
        assert_eq!(line["status"], 202);
        assert_eq!(line["event"], "workflow_job");
        // From Envoy to the container.
        assert_eq!(stack.sidecar.log_lines(&[guid, "event stored"])?, 1);
        assert_eq!(stack.sidecar.log_lines(&[guid, "container started"])?, 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_no_pool_serves_is_stored_and_the_missing_label_named() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let webhook = Webhook::job(7);
        let answer = stack.send(&webhook).await?;
        assert_accepted(&answer);
        assert_eq!(
            answer.json()?,
            json!({
                "outcome": "accepted", "delivery": webhook.guid(), "job": 7,
                "pool": null, "missing_labels": ["nobody-has-this"],
            })
        );
        let waiting = eventually("the job waits", async || stack.sidecar.waiting(7).await).await?;
        assert_eq!(waiting.0, "no_pool_has_labels");
        assert!(waiting.1.contains("nobody-has-this"), "{waiting:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_same_guid_is_stored_once() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let webhook = Webhook::job(1);
        assert_accepted(&stack.send(&webhook).await?);
        let again = stack.send(&webhook).await?;
        assert_eq!((again.status, again.outcome()), (202, "duplicate"));
        assert_eq!(
            again.json()?,
            json!({"outcome": "duplicate", "delivery": webhook.guid(), "job": 1})
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_without_a_valid_signature_are_rejected() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let good = Webhook::job(1);
        let digits = hmac_sha256(SECRET, &good.body);
        let sha1 = hmac_sha1(SECRET, &good.body);
        let signature = |value: &str| good.clone().header("x-hub-signature-256", value);
        let unsigned = good.clone().without("x-hub-signature-256");

        let cases = [
            (good.clone().signed_with("another secret"), 401, "signature_mismatch"),
            // One byte of the body is missing.
            (Webhook { body: good.body.slice(1..), ..good.clone() }, 401, "signature_mismatch"),
            (unsigned.clone(), 401, "signature_missing"),
            (
                unsigned.clone().and_header("x-hub-signature", format!("sha1={sha1}")),
                401,
                "signature_missing",
            ),
            (signature(&format!("sha1={sha1}")), 400, "signature_malformed"),
            // SHA-1 with the name and the length of SHA-256.
            (signature(&format!("sha256={sha1:0>64}")), 401, "signature_mismatch"),
            (signature(""), 400, "signature_malformed"),
            (signature(&digits), 400, "signature_malformed"),
            (signature(&format!("sha256={}", &digits[1..])), 400, "signature_malformed"),
            (signature(&format!("sha256={digits}0")), 400, "signature_malformed"),
            (signature(&format!("SHA256={digits}")), 400, "signature_malformed"),
            (signature(&format!("sha256={}g", &digits[1..])), 400, "signature_malformed"),
            (
                good.clone().and_header("x-hub-signature-256", format!("sha256={digits}")),
                400,
                "signature_malformed",
            ),
        ];
        for (webhook, status, outcome) in cases {
            assert_rejected(&stack.send(&webhook).await?, status, outcome);
        }
        assert_eq!(stack.sidecar.log_lines(&["event stored"])?, 0);
        // Digits may be in upper or lower case.
        assert_accepted(
            &stack.send(&signature(&format!("sha256={}", digits.to_uppercase()))).await?,
        );
        assert_unharmed(stack).await
    })
    .await;
}

#[tokio::test]
async fn headers_that_github_never_sends_are_rejected() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let good = Webhook::job(1);
        let cases = [
            (good.clone().without("x-github-delivery"), 400, "header_malformed"),
            (good.clone().header("x-github-delivery", "not a guid"), 400, "header_malformed"),
            (good.clone().and_header("x-github-delivery", good.guid()), 400, "header_malformed"),
            (good.clone().without("x-github-event"), 400, "header_malformed"),
            (good.clone().and_header("x-github-event", "ping"), 400, "header_malformed"),
            (good.clone().header("content-type", "text/plain"), 415, "media_type"),
            (good.clone().without("content-type"), 415, "media_type"),
        ];
        for (webhook, status, outcome) in cases {
            assert_rejected(&stack.send(&webhook).await?, status, outcome);
        }
        let get = String::from_utf8(good.head())?.replacen("POST", "GET", 1) + "\r\n";
        let answer = raw::exchange(stack.envoy.address(), [get]).await?;
        assert_rejected(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "POST");
        assert_unharmed(stack).await
    })
    .await;
}

/// The SDK's usual functions expect UTF-8 and would trap.
#[tokio::test]
async fn header_bytes_beyond_ascii_do_no_harm() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let length = |webhook: Webhook| {
            let length = webhook.body.len().to_string();
            webhook.and_header("content-length", length)
        };
        let good = length(Webhook::job(1));
        let cases = [
            (good.clone().and_header("x-other", b"\xff\xfe\x80"), 202, "accepted"),
            (good.clone().header("user-agent", b"Hookshot \xe9"), 202, "duplicate"),
            (good.clone().header("x-github-delivery", b"\xff"), 400, "header_malformed"),
            (good.clone().header("x-github-event", b"workflow_job\x80"), 400, "header_malformed"),
            (
                good.clone().header("x-hub-signature-256", b"sha256=\xc3\x28"),
                400,
                "signature_malformed",
            ),
            (good.clone().header("content-type", b"application/json\xa0"), 415, "media_type"),
            (good.clone().and_header("traceparent", b"\xf0\x9f\x98"), 202, "duplicate"),
        ];
        for (webhook, status, outcome) in cases {
            let pieces = [webhook.head(), b"\r\n".to_vec(), webhook.body.to_vec()];
            let answer = raw::exchange(stack.envoy.address(), pieces).await?;
            assert_eq!((answer.status, answer.outcome()), (status, outcome), "{answer:?}");
        }
        stack.envoy.check_filter().await?;
        assert_unharmed(stack).await
    })
    .await;
}

#[tokio::test]
async fn a_form_is_read_like_json() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let form = |body: String| {
            Webhook::new("workflow_job", body)
                .header("content-type", "application/x-www-form-urlencoded")
        };
        let encoded = |text: &str| -> String {
            form_urlencoded::Serializer::new(String::new()).append_pair("payload", text).finish()
        };
        let answer = stack.send(&form(encoded(&payload("queued", 5).to_string()))).await?;
        assert_accepted(&answer);
        assert_eq!(answer.json()?["job"], 5);

        assert_rejected(&stack.send(&form("other=1".into())).await?, 400, "payload_malformed");
        let answer = stack.send(&form(encoded("{"))).await?;
        assert_rejected(&answer, 400, "payload_malformed");
        assert!(answer.reason()?.contains("line 1 column 1"), "{answer:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn pings_and_other_events_are_answered_and_not_forwarded() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let pong =
            stack.send(&Webhook::new("ping", r#"{"zen":"Keep it logically awesome."}"#)).await?;
        assert_eq!((pong.status, pong.outcome()), (200, "pong"));

        stack.sandbox.ping(&JobRequest::default().repository)?;
        let ping = eventually("the sandbox's ping is answered", async || {
            Ok(stack.sandbox.deliveries().into_iter().find(|delivery| delivery.event == "ping"))
        })
        .await?;
        assert_eq!(ping.status_code, 200);

        let ignored = [
            Webhook::new("push", "{}"),
            Webhook::new("workflow_run", payload("queued", 1).to_string()),
            Webhook::workflow_job(&payload("waiting", 1)),
        ];
        for webhook in ignored {
            let answer = stack.send(&webhook).await?;
            assert_eq!((answer.status, answer.outcome()), (202, "ignored"), "{answer:?}");
        }
        assert_eq!(stack.sidecar.log_lines(&["event stored"])?, 0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_invalid_payload_is_rejected_with_the_position_of_the_error() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let cases = [
            ("{\n  \"action\": queued}", "line 2 column 13"),
            ("", "line 1 column 0"),
            ("[]", "line 1 column"),
            (r#"{"action":"queued","workflow_job":{"id":"x"}}"#, "line 1 column"),
            (r#"{"action":"queued"}"#, "workflow_job"),
        ];
        for (body, reason) in cases {
            let answer = stack.send(&Webhook::new("workflow_job", body)).await?;
            assert_rejected(&answer, 400, "payload_malformed");
            assert!(answer.reason()?.contains(reason), "{body}: {answer:?}");
        }
        assert_unharmed(stack).await
    })
    .await;
}

#[tokio::test]
async fn other_paths_are_not_webhooks() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        for path in ["/", "/webhooks", "/webhooks/githubx", "/elsewhere"] {
            let answer = stack.send(&Webhook::job(1).path(path)).await?;
            assert_eq!((answer.status, answer.outcome()), (404, ""), "{path}");
        }
        let answer = stack.send(&Webhook::job(1).path("/webhooks/github/other")).await?;
        assert_rejected(&answer, 404, "unknown_hook");
        // The most likely mistake in a webhook's URL.
        assert_accepted(&stack.send(&Webhook::job(1).path("/webhooks/github/")).await?);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn both_secrets_are_valid_during_a_rotation() {
    let options = Options::default().envoy("GITHUB_WEBHOOK_SECRET_PREVIOUS", "the old secret");
    Stack::run(options, async |stack| -> Result<()> {
        assert_accepted(&stack.send(&Webhook::job(1)).await?);
        assert_accepted(&stack.send(&Webhook::job(2).signed_with("the old secret")).await?);
        let answer = stack.send(&Webhook::job(3).signed_with("an older one")).await?;
        assert_rejected(&answer, 401, "signature_mismatch");
        // A metric shows whether the old one is still in use.
        let verified =
            |position: u8| format!("wasmcustom.edgerunner.verified.hook.default.secret.{position}");
        assert_eq!(stack.envoy.stat(&verified(0)).await?, 1);
        assert_eq!(stack.envoy.stat(&verified(1)).await?, 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_are_answered_503_while_the_sidecar_is_down() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        assert_accepted(&stack.send(&Webhook::job(1)).await?);
        stack.sidecar.kill().await?;
        let webhook = Webhook::job(2);
        let answer = stack.send(&webhook).await?;
        assert_eq!((answer.status, answer.outcome()), (503, "unavailable"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "5");

        stack.sidecar.start().await?;
        // As a redelivery: the same GUID.
        let answer = eventually("Envoy finds the sidecar again", async || {
            let answer = stack.send(&webhook).await?;
            Ok((answer.status != 503).then_some(answer))
        })
        .await?;
        assert_accepted(&answer);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_to_a_sidecar_that_hangs_are_answered_503_before_github_gives_up() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sidecar.freeze()?;
        let webhook = Webhook::job(1);
        let sent_at = Instant::now();
        let answer = stack.send(&webhook).await?;
        let took = sent_at.elapsed();
        assert_eq!((answer.status, answer.outcome()), (503, "unavailable"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "5");
        assert!(took < GITHUB_TIMEOUT, "{took:?}");

        stack.sidecar.thaw()?;
        // It may have been stored; then this is a duplicate.
        let answer = eventually("the sidecar answers again", async || {
            let answer = stack.send(&webhook).await?;
            Ok((answer.status != 503).then_some(answer))
        })
        .await?;
        assert_eq!(answer.status, 202, "{answer:?}");
        let stored = eventually("the job is known", async || {
            Ok(stack.sidecar.get("/api/v1/jobs").await?.json()?.as_array().map(Vec::len))
        })
        .await?;
        assert_eq!(stored, 1);
        Ok(())
    })
    .await;
}

/// Sends deliveries until the worker's stream to the sidecar is open.
async fn stream_open(stack: &Stack, job: &mut u64) -> Result<()> {
    eventually("the stream to the sidecar is open", async || {
        let before = calls(stack).await?;
        *job += 1;
        assert_accepted(&stack.send(&Webhook::job(*job)).await?);
        Ok((calls(stack).await? == before).then_some(()))
    })
    .await
}

/// Envoy's requests to the sidecar, including the stream.
async fn calls(stack: &Stack) -> Result<u64> {
    stack.envoy.stat("cluster.edgerunner_sidecar.upstream_rq_total").await
}

#[tokio::test]
async fn deliveries_share_a_stream_that_is_reopened_after_a_restart() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut job = 0;
        stream_open(stack, &mut job).await?;
        let before = calls(stack).await?;
        let webhooks: Vec<_> = (100..120).map(Webhook::job).collect();
        for answer in try_join_all(webhooks.iter().map(|webhook| stack.send(webhook))).await? {
            assert_accepted(&answer);
        }
        // A response over the stream is the same as to a call.
        let again = stack.send(&webhooks[0]).await?;
        assert_eq!((again.status, again.outcome()), (202, "duplicate"), "{again:?}");
        assert_eq!(calls(stack).await?, before);

        // An open stream does not keep the sidecar from ending.
        let sent_at = Instant::now();
        stack.sidecar.terminate().await?;
        assert!(sent_at.elapsed() < Duration::from_secs(4), "{:?}", sent_at.elapsed());
        let answer = stack.send(&Webhook::job(200)).await?;
        assert_eq!((answer.status, answer.outcome()), (503, "unavailable"), "{answer:?}");

        stack.sidecar.start().await?;
        eventually("deliveries are accepted again", async || {
            Ok((stack.send(&Webhook::job(200)).await?.status == 202).then_some(()))
        })
        .await?;
        stream_open(stack, &mut job).await?;
        assert_eq!(stack.sidecar.get("/api/v1/jobs").await?.json()?.as_array().map(Vec::len), {
            let jobs = usize::try_from(job)? + 20 + 1;
            Some(jobs)
        });
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_on_a_stream_that_hangs_are_answered_before_github_gives_up() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut job = 0;
        stream_open(stack, &mut job).await?;
        stack.sidecar.freeze()?;
        let sent_at = Instant::now();
        let webhooks: Vec<_> = (100..110).map(Webhook::job).collect();
        for answer in try_join_all(webhooks.iter().map(|webhook| stack.send(webhook))).await? {
            assert_eq!((answer.status, answer.outcome()), (503, "unavailable"), "{answer:?}");
        }
        let took = sent_at.elapsed();
        assert!(took < GITHUB_TIMEOUT, "{took:?}");
        stack.sidecar.thaw()?;
        // They may have been stored; none is lost, and none is stored twice.
        for webhook in &webhooks {
            eventually("the sidecar answers again", async || {
                Ok((stack.send(webhook).await?.status == 202).then_some(()))
            })
            .await?;
        }
        stream_open(stack, &mut job).await?;
        let jobs = stack.sidecar.get("/api/v1/jobs").await?.json()?;
        assert_eq!(jobs.as_array().map(Vec::len), Some(usize::try_from(job)? + 10));
        Ok(())
    })
    .await;
}
