//! Recovery of webhooks that never arrived.

use anyhow::{Context, Result};
use edgerunner_sandbox::{
    DeliveryFault, DeliveryFaultKind, Fault, Faults, JobRequest, RequestFault, WebhookKind,
};
use edgerunner_tests::{Options, Stack, eventually};

/// Only for tests.
const PRIVATE_KEY: &str = include_str!("../../../sidecar/src/github/test-app.pem");

fn options() -> Options {
    Options::default()
        .sidecar("MISSED_WEBHOOKS_ENABLED", "true")
        .sidecar("MISSED_WEBHOOKS_INTERVAL_SECONDS", "1")
}

fn next_queued(kind: DeliveryFaultKind) -> Faults {
    let fault =
        DeliveryFault { action: Some("queued".into()), next: Some(1), ..DeliveryFault::from(kind) };
    Faults { deliveries: vec![fault], ..Faults::default() }
}

/// A repository is unknown until its first delivery.
async fn a_job_was_done(stack: &Stack) -> Result<()> {
    let id = stack.queue(0.1);
    stack.completed(id).await?;
    stack.settled().await
}

async fn metric(stack: &Stack, name: &str) -> Result<u64> {
    let metrics = stack.sidecar.metrics().await?;
    let values = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(values
        .filter(|(series, _)| series.starts_with(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum())
}

/// The requests that recovery used.
async fn print_spent(stack: &Stack) -> Result<u64> {
    let spent = metric(stack, "edgerunner_missed_requests_total").await?;
    println!("{spent} requests spent\n{}", stack.sidecar.print(&["status"]).await?);
    Ok(spent)
}

fn calls(stack: &Stack, path: &str, status: u16) -> usize {
    let calls = stack.sandbox.calls();
    calls.iter().filter(|it| it.path.contains(path) && it.status == Some(status)).count()
}

#[tokio::test]
async fn a_lost_delivery_is_redelivered_by_each_kind_of_webhook() {
    let app = edgerunner_sandbox::APP_ID.to_string();
    for (hook, path) in [
        (WebhookKind::Repository, "/repos/acme/app/hooks/"),
        (WebhookKind::Organization, "/orgs/acme/hooks/"),
        (WebhookKind::Integration, "/app/hook/"),
    ] {
        let mut options = options().hook(hook);
        if hook == WebhookKind::Integration {
            options = options
                .sidecar("GITHUB_TOKEN", "")
                .sidecar("GITHUB_APP_ID", &app)
                .sidecar("GITHUB_APP_PRIVATE_KEY", PRIVATE_KEY);
        }
        // Polling finds no jobs.
        let no_jobs_listed = RequestFault {
            path: Some("/actions/runs".into()),
            ..RequestFault::from(Fault::NotFound)
        };
        Stack::run(options, async |stack| -> Result<()> {
            a_job_was_done(stack).await?;
            let mut faults = next_queued(DeliveryFaultKind::Lost);
            faults.requests.push(no_jobs_listed.clone());
            stack.sandbox.set_faults(faults);
            let id = stack.queue(0.1);
            stack.completed(id).await?;
            stack.settled().await?;
            assert_eq!(calls(stack, "/attempts", 202), 1);
            let calls = stack.sandbox.calls();
            let again = calls.iter().find(|call| call.path.ends_with("/attempts"));
            assert!(again.context("no call")?.path.starts_with(path), "{again:?}");
            let redelivered = stack.sandbox.deliveries().into_iter().find(|it| it.redelivery);
            assert_eq!(redelivered.context("none")?.job_id, Some(id));
            print_spent(stack).await?;
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn webhooks_that_are_signed_with_another_secret_are_named_as_refused() {
    let options = options()
        .sidecar("RUNNER_REPOSITORIES", "acme/app")
        .envoy("GITHUB_WEBHOOK_SECRET", "a secret that GitHub does not have");
    Stack::run(options, async |stack| -> Result<()> {
        // Its address is known only now.
        let url = format!("http://{}/webhooks/github", stack.envoy.address());
        stack.sidecar.terminate().await?;
        stack.sidecar.configure("GITHUB_WEBHOOK_URL", &url);
        stack.sidecar.start().await?;
        stack.sandbox.ping(&JobRequest::default().repository)?;
        let refused = eventually("the webhook is known as refused", async || {
            let status = stack.sidecar.status().await?;
            Ok(status["refused_webhooks"].as_array().context("no list")?.first().cloned())
        })
        .await?;
        let hook = refused["webhook"].as_str().context("no name")?.to_owned();
        assert!(hook.starts_with("repos/acme/app/hooks/"), "{refused}");
        assert_eq!(
            (&refused["url"], &refused["refused"]),
            (&url.clone().into(), &1.into()),
            "{refused}"
        );
        let status = stack.sidecar.print(&["status"]).await?;
        assert!(status.contains("GitHub's webhooks are refused"), "{status}");
        assert!(status.contains(&format!("{hook} to {url}: a delivery of the last")), "{status}");

        let doctor = stack.sidecar.run(&["doctor", "--json"]).await?;
        assert_eq!(doctor.status.code(), Some(1));
        let found: serde_json::Value = serde_json::from_slice(&doctor.stdout)?;
        let checks = found.as_array().context("a list")?;
        let name = format!("deliveries of {hook}");
        let check = checks.iter().find(|it| it["check"] == *name).context("no such check")?;
        assert_eq!(check["outcome"], "failed", "{check}");
        let message = check["message"].as_str().context("no message")?;
        assert!(message.contains("its secret at GitHub differs"), "{message}");
        assert!(message.contains(&format!("`edgerunner webhook ping {hook}`")), "{message}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_webhook_vanished_is_found_and_the_webhook_may_come_late() {
    Stack::run(options(), async |stack| -> Result<()> {
        a_job_was_done(stack).await?;
        stack.sandbox.set_faults(next_queued(DeliveryFaultKind::Vanished));
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!(calls(stack, "/attempts", 202), 0);
        assert_eq!(
            stack.sidecar.log_lines(&["found a queued job without a webhook", &id.to_string()])?,
            1
        );
        assert_eq!(metric(stack, "edgerunner_missed_jobs_found_total").await?, 1);

        // The webhook comes after the job was found.
        stack.sandbox.set_faults(next_queued(DeliveryFaultKind::Delayed { ms: 5_000 }));
        let late = stack.queue(0.1);
        stack.completed(late).await?;
        let webhook = eventually("its webhook comes as well", async || {
            let deliveries = stack.sandbox.deliveries();
            Ok(deliveries
                .into_iter()
                .find(|it| it.job_id == Some(late) && it.action.as_deref() == Some("queued")))
        })
        .await?;
        assert_eq!(webhook.status_code, 202);
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (3, 3));
        let spent = print_spent(stack).await?;
        assert!(calls(stack, "/actions/runs", 304) > 0);
        assert!(spent < stack.sandbox.calls().len() as u64);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn without_the_permission_to_see_deliveries_queued_jobs_are_looked_up() {
    Stack::run(options(), async |stack| -> Result<()> {
        a_job_was_done(stack).await?;
        let denied = RequestFault {
            path: Some("/deliveries".into()),
            ..RequestFault::from(Fault::NotFound)
        };
        let mut faults = next_queued(DeliveryFaultKind::Lost);
        faults.requests.push(denied);
        stack.sandbox.set_faults(faults);
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!(stack.sidecar.log_lines(&["cannot list deliveries of"])?, 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_configured_repository_is_polled_before_its_first_delivery() {
    let options = options().sidecar("RUNNER_REPOSITORIES", "acme/app");
    Stack::run(options, async |stack| -> Result<()> {
        stack.sandbox.set_faults(next_queued(DeliveryFaultKind::Vanished));
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        // Jobs with labels of no pool are ignored.
        stack.sandbox.set_faults(next_queued(DeliveryFaultKind::Vanished));
        let foreign = stack.queue_for("windows");
        let next = stack.queue(0.1);
        stack.completed(next).await?;
        let polled = calls(stack, "/jobs?", 200);
        eventually("it was polled", async || {
            Ok((calls(stack, "/jobs?", 304) + calls(stack, "/jobs?", 200) > polled).then_some(()))
        })
        .await?;
        assert_eq!(stack.sidecar.waiting(foreign).await?, None);
        stack.sandbox.cancel_job(foreign)?;
        Ok(())
    })
    .await;
}

/// Envoy answered 503; only the sidecar requests redelivery.
#[tokio::test]
async fn deliveries_that_failed_while_the_sidecar_was_down_are_redelivered() {
    Stack::run(options(), async |stack| -> Result<()> {
        a_job_was_done(stack).await?;
        stack.sidecar.kill().await?;
        let request = JobRequest { seconds: 0.1, count: 5, ..JobRequest::default() };
        let jobs = stack.sandbox.queue_jobs(&request);
        eventually("their webhooks have failed", async || {
            let deliveries = stack.sandbox.deliveries();
            Ok((deliveries.iter().filter(|it| it.status_code == 503).count() == 5).then_some(()))
        })
        .await?;
        // Hooks are known from before the restart.
        stack.sandbox.set_faults(Faults {
            requests: vec![RequestFault {
                path: Some("/actions/runs".into()),
                ..RequestFault::from(Fault::NotFound)
            }],
            ..Faults::default()
        });
        stack.sidecar.start().await?;
        for id in jobs {
            stack.completed(id).await?;
        }
        // A runner takes the oldest job, so they may be completed earlier.
        eventually("each was redelivered", async || {
            Ok((calls(stack, "/attempts", 202) == 5).then_some(()))
        })
        .await?;
        stack.settled().await?;
        print_spent(stack).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn recovery_pauses_and_says_so_once_its_share_is_used_up() {
    let options = options().sidecar("MISSED_WEBHOOKS_BUDGET_SHARE", "0.001");
    Stack::run(options, async |stack| -> Result<()> {
        // A change makes the next list count against the quota.
        let missed = eventually("the share is used up", async || {
            a_job_was_done(stack).await?;
            let missed = stack.sidecar.status().await?["budgets"][0]["missed"].clone();
            Ok((!missed["waits_until_ms"].is_null()).then_some(missed))
        })
        .await?;
        assert_eq!((&missed["allowed"], &missed["spent"]), (&5.into(), &5.into()));
        assert_eq!(print_spent(stack).await?, 5);
        assert_eq!(metric(stack, "edgerunner_missed_waiting{").await?, 1);
        assert!(stack.sidecar.print(&["status"]).await?.contains("5 of 5, resumes in"));
        a_job_was_done(stack).await?;
        assert_eq!(print_spent(stack).await?, 5);
        assert_eq!(stack.sidecar.log_lines(&["webhook recovery pauses"])?, 1);
        Ok(())
    })
    .await;
}
