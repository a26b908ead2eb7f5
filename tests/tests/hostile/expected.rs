//! The deliveries that may be stored.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use edgerunner_tests::{SECRET, Stack, Webhook, eventually, hmac_sha256};
use serde_json::Value;

/// The GUIDs of deliveries whose only signature is an HMAC over the whole body, which is
/// computed here, independently of the filter.
#[derive(Default)]
pub(crate) struct Expected {
    guids: HashSet<String>,
}

impl Expected {
    pub(crate) fn enter(&mut self, webhooks: &[Webhook]) {
        let genuine = webhooks.iter().filter(|webhook| is_genuine(webhook));
        self.guids.extend(genuine.map(Webhook::guid));
    }

    /// Fails if the sidecar has stored any other delivery.
    pub(crate) fn check(&self, stack: &Stack) -> Result<()> {
        for line in stack.sidecar.log()?.lines() {
            if !line.contains("\"event stored\"") {
                continue;
            }
            let line: Value = serde_json::from_str(line)?;
            let guid = line["delivery"].as_str().context("a line without a delivery")?;
            ensure!(self.guids.contains(guid), "stored although it is not signed: {guid}");
        }
        Ok(())
    }
}

pub(crate) fn is_genuine(webhook: &Webhook) -> bool {
    let mut signatures =
        webhook.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256"));
    let expected = format!("sha256={}", hmac_sha256(SECRET, &webhook.body));
    match (signatures.next(), signatures.next()) {
        (Some((_, value)), None) => value.eq_ignore_ascii_case(expected.as_bytes()),
        _ => false,
    }
}

/// Checks that nothing is left and that the next genuine delivery is accepted.
pub(crate) async fn unharmed(stack: &Stack, expected: &mut Expected) -> Result<()> {
    stack.envoy.check_filter().await?;
    for (name, most) in [
        ("http.webhooks.downstream_rq_active", 0),
        ("http.webhooks.downstream_cx_active", 0),
        // The worker's stream to the sidecar.
        ("cluster.edgerunner_sidecar.upstream_rq_active", 1),
        ("cluster.edgerunner_sidecar.upstream_rq_pending_active", 0),
    ] {
        eventually(&format!("{name} is back at {most}"), async || {
            Ok((stack.envoy.stat(name).await? <= most).then_some(()))
        })
        .await?;
    }
    let webhook = crate::case::genuine();
    expected.enter(std::slice::from_ref(&webhook));
    let answer = stack.send(&webhook).await?;
    ensure!(answer.outcome() == "accepted", "a genuine delivery was rejected: {answer:?}");
    expected.check(stack)
}
