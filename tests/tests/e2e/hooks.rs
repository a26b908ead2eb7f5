//! Settings of the filter: secrets, dry run, forwarded events.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;
use edgerunner_tests::{Options, Stack, Webhook, eventually};
use tempfile::TempDir;
use tokio::time::Instant;

/// How often the filter fetches secrets from the sidecar.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

const SECRETS_ENV: &str = r#""secrets_env": [
                                    "GITHUB_WEBHOOK_SECRET",
                                    "GITHUB_WEBHOOK_SECRET_PREVIOUS"
                                  ]"#;

#[tokio::test]
async fn secrets_of_the_sidecar_are_rotated_under_load_and_no_delivery_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    let [current, previous] = ["current", "previous"].map(|name| directory.path().join(name));
    fs::write(&current, "the first one").expect("a file");
    let options = Options::default()
        .file(&format!("[[webhooks]]\nsecret_files = [{current:?}, {previous:?}]\n"))
        // Secrets in the environment are not used.
        .envoy_configuration(SECRETS_ENV, r#""secrets_from": "sidecar""#);
    Stack::run(options, async |stack| -> Result<()> {
        let first = |job| Webhook::job(job).signed_with("the first one");
        let second = |job| Webhook::job(job).signed_with("the second one");
        // 503 instead of 401 until the sidecar has sent the secret: GitHub can redeliver.
        eventually("the secret is known", async || {
            let answer = stack.send(&first(1)).await?;
            assert!([202, 503].contains(&answer.status), "{answer:?}");
            Ok((answer.status == 202).then_some(()))
        })
        .await?;
        assert_eq!(stack.send(&second(2)).await?.outcome(), "signature_mismatch");
        assert_eq!(stack.send(&Webhook::job(2)).await?.outcome(), "signature_mismatch");

        // GitHub signs with the old secret until the filter knows the new one.
        let known = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        let load = async {
            let mut job = 100;
            while !done.load(Ordering::Relaxed) {
                job += 1;
                let known = known.load(Ordering::Relaxed);
                let webhook = if known { second(job) } else { first(job) };
                let answer = stack.send(&webhook).await?;
                assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");
            }
            Ok(job - 100)
        };
        let rotation = async {
            fs::write(&previous, "the first one\n")?;
            fs::write(&current, "the second one\n")?;
            let written_at = Instant::now();
            eventually("the new secret is known", async || {
                Ok((stack.send(&second(3)).await?.status == 202).then_some(()))
            })
            .await?;
            let took = written_at.elapsed();
            assert!(took < REFRESH_INTERVAL + Duration::from_secs(3), "{took:?}");
            known.store(true, Ordering::Relaxed);
            fs::remove_file(&previous)?;
            eventually("the old secret is out of use", async || {
                Ok((stack.send(&first(4)).await?.status == 401).then_some(()))
            })
            .await?;
            done.store(true, Ordering::Relaxed);
            Ok(())
        };
        let (sent, rotated): (Result<u64>, Result<()>) = tokio::join!(load, rotation);
        rotated?;
        assert!(sent? > 100);

        // The secrets stay while the sidecar is down, so forged deliveries are rejected.
        stack.sidecar.kill().await?;
        assert_eq!(stack.send(&second(5)).await?.status, 503);
        assert_eq!(stack.send(&first(6)).await?.status, 401);
        stack.sidecar.start().await?;
        for word in ["the first one", "the second one"] {
            assert!(!stack.sidecar.log()?.contains(word) && !stack.envoy.log()?.contains(word));
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_reports_and_passes_everything() {
    let options = Options::default()
        .envoy_configuration(r#""max_body_bytes": 26214400,"#, r#""dry_run": true,"#);
    Stack::run(options, async |stack| -> Result<()> {
        let genuine = Webhook::job(1);
        let forged = Webhook::job(2).signed_with("another secret");
        for (webhook, outcome) in [(&genuine, "accepted"), (&forged, "signature_mismatch")] {
            let answer = stack.send(webhook).await?;
            // The shipped route has a cluster without endpoints.
            assert_eq!((answer.status, answer.outcome()), (503, ""), "{answer:?}");
            assert_eq!(answer.header("x-edgerunner-dry-run"), outcome);
            let stat = format!("wasmcustom.edgerunner.deliveries.hook.default.outcome.{outcome}");
            assert_eq!(stack.envoy.stat(&stat).await?, 1);
        }
        let line = format!("delivery={} hook=default status=202 outcome=accepted", genuine.guid());
        assert!(stack.envoy.log()?.contains(&line));
        assert_eq!(stack.sidecar.get("/api/v1/jobs").await?.json()?, serde_json::json!([]));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_hook_forwards_only_the_events_it_names() {
    let options = Options::default().envoy_configuration(
        r#""max_body_bytes": 26214400,"#,
        r#""hooks": [{"name": "", "events": ["workflow_job.in_progress", "workflow_job.completed"]}],"#,
    );
    // The shipped file already has hooks, and a field may not occur twice.
    let options = options.envoy_configuration(
        &format!(
            r#""hooks": [
                                {{
                                  "name": "",
                                  {SECRETS_ENV}
                                }}
                              ],"#
        ),
        "",
    );
    Stack::run(options, async |stack| -> Result<()> {
        let answer = stack.send(&Webhook::job(1)).await?;
        assert_eq!((answer.status, answer.outcome()), (202, "ignored"), "{answer:?}");
        assert_eq!(stack.sidecar.get("/api/v1/jobs").await?.json()?, serde_json::json!([]));
        Ok(())
    })
    .await;
}
