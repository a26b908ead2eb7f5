//! Restarts of the sidecar, after a kill or a graceful shutdown.

use std::time::Duration;

use anyhow::{Context, Result};
use edgerunner_sandbox::{Fault, Faults, RequestFault};
use edgerunner_tests::{Options, Stack, Webhook, eventually};
use futures_util::future::try_join_all;
use tokio::time::Instant;

/// Delays GitHub's responses to requests for runner credentials.
fn slow_credentials(stack: &Stack, ms: u64) {
    let fault = RequestFault {
        path: Some("generate-jitconfig".into()),
        ..RequestFault::from(Fault::Latency { ms })
    };
    stack.sandbox.set_faults(Faults { requests: vec![fault], ..Faults::default() });
}

async fn credentials_are_requested(stack: &Stack) -> Result<()> {
    eventually("credentials are requested", async || Ok((stack.launches() > 0).then_some(()))).await
}

#[tokio::test]
async fn accepted_events_are_on_disk() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let webhooks: Vec<_> = (1..=20).map(Webhook::job).collect();
        let answers = try_join_all(webhooks.iter().map(|webhook| stack.send(webhook))).await?;
        stack.sidecar.kill().await?;
        assert!(answers.iter().all(|answer| answer.outcome() == "accepted"), "{answers:?}");
        stack.sidecar.start().await?;
        let status = stack.sidecar.status().await?;
        let mut waiting: Vec<_> = status["waiting"]
            .as_array()
            .context("no list")?
            .iter()
            .map(|it| it["job_id"].as_u64())
            .collect();
        waiting.sort_unstable();
        assert_eq!(waiting, (1..=20).map(Some).collect::<Vec<_>>());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_docker_that_is_absent_at_the_start_is_waited_for() {
    Stack::run(Options::default().docker_proxy(), async |stack| -> Result<()> {
        stack.sidecar.terminate().await?;
        let engine = stack.docker_proxy().host().replace("unix://", "");
        let socket = stack.sidecar.file("absent.sock");
        stack.sidecar.configure("DOCKER_HOST", &format!("unix://{}", socket.display()));
        stack.sidecar.spawn()?;
        let expected = format!("no socket at {}: start Docker Engine", socket.display());
        eventually("the sidecar says what it waits for", async || {
            let ready = stack.sidecar.get("/readyz").await?;
            Ok((ready.status == 503 && String::from_utf8_lossy(&ready.body).contains(&expected))
                .then_some(()))
        })
        .await?;
        let status = stack.sidecar.status().await?;
        let error = status["provider_error"].as_str().unwrap_or_default();
        assert!(error.contains(&expected), "{status}");
        let shown = stack.sidecar.print(&["status"]).await?;
        assert!(shown.contains(&expected), "{shown}");
        let id = stack.queue(0.1);
        stack.waits_for(id, "recovering").await?;

        std::os::unix::fs::symlink(engine, &socket)?;
        stack.sidecar.ready().await?;
        stack.completed(id).await?;
        assert_eq!(stack.sidecar.status().await?["provider_error"], serde_json::Value::Null);
        assert_eq!(stack.sidecar.log_lines(&["the provider does not answer"])?, 1);
        assert_eq!(stack.sidecar.log_lines(&["the provider answers again"])?, 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_launch_was_killed_gets_its_runner_after_the_restart() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        slow_credentials(stack, 60_000);
        let id = stack.queue(0.1);
        credentials_are_requested(stack).await?;
        stack.sidecar.kill().await?;
        stack.sandbox.set_faults(Faults::default());
        assert_eq!(stack.containers.started(), 0);
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!(stack.containers.started(), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_registration_whose_container_was_never_created_is_removed() {
    Stack::run(Options::default().docker_proxy(), async |stack| -> Result<()> {
        // Between the check of the image and the creation of the container.
        slow_credentials(stack, 500);
        let id = stack.queue(0.1);
        credentials_are_requested(stack).await?;
        stack.docker_proxy().close();
        let orphan = eventually("GitHub has the registration", async || {
            Ok(stack.sandbox.runners().into_iter().next())
        })
        .await?;
        stack.sidecar.kill().await?;
        stack.docker_proxy().reopen();
        assert_eq!(stack.containers.list().await?.len(), 0);

        stack.sidecar.start().await?;
        let job = stack.completed(id).await?;
        assert_ne!(job.runner.context("no runner")?.runner_name, orphan.name);
        stack.settled().await?;
        assert_eq!(stack.containers.started(), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_running_container_is_adopted_after_a_kill() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let id = stack.at_work().await?;
        stack.sidecar.kill().await?;
        assert_eq!(stack.containers.running().await?.len(), 1);
        stack.sidecar.start().await?;
        stack.busy(id).await?;
        stack.cancel(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

/// `in_progress` and `completed` are not sent again.
#[tokio::test]
async fn a_job_that_ended_while_the_sidecar_was_down_takes_no_capacity() {
    let options = Options::default().sidecar("RUNNER_MAX", "1");
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.at_work().await?;
        stack.sidecar.kill().await?;
        stack.cancel(first).await?;
        eventually("its webhook fails", async || {
            let deliveries = stack.sandbox.deliveries();
            Ok(deliveries.iter().any(|it| it.status_code == 503).then_some(()))
        })
        .await?;
        stack.sidecar.start().await?;
        let second = stack.queue(0.1);
        stack.completed(second).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_graceful_shutdown_leaves_busy_runners_working() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let id = stack.at_work().await?;
        stack.sidecar.terminate().await?;
        assert_eq!(stack.containers.running().await?.len(), 1);
        stack.sidecar.start().await?;
        stack.busy(id).await?;
        stack.cancel(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_graceful_shutdown_finishes_the_launch_in_progress() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        slow_credentials(stack, 1_000);
        let id = stack.queue(600.0);
        credentials_are_requested(stack).await?;
        stack.sidecar.terminate().await?;
        // The Engine may report the start a moment later.
        eventually("the container starts", async || {
            Ok((stack.containers.started() > 0).then_some(()))
        })
        .await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        stack.in_progress(id).await?;
        stack.sidecar.start().await?;
        // The sidecar was down when it started.
        stack.redeliver(id).await?;
        stack.busy(id).await?;
        stack.cancel(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_launch_that_hangs_delays_the_shutdown_by_the_grace_period_only() {
    let options = Options::default()
        .sidecar("SCHEDULER_SHUTDOWN_GRACE_SECONDS", "1")
        .sidecar("GITHUB_TIMEOUT_SECONDS", "60");
    Stack::run(options, async |stack| -> Result<()> {
        slow_credentials(stack, 60_000);
        let id = stack.queue(0.1);
        credentials_are_requested(stack).await?;
        let signalled_at = Instant::now();
        stack.sidecar.terminate().await?;
        let took = signalled_at.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        stack.sandbox.set_faults(Faults::default());
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_open_connection_does_not_delay_the_shutdown() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let watching = stack.sidecar.watch_health().await?;
        assert_eq!(watching.status(), 200);
        stack.sidecar.terminate().await
    })
    .await;
}
