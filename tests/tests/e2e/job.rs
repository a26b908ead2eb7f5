//! A job from queued to completed.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{Conclusion, Fault, Faults, JobRequest, JobStatus, RequestFault, Scope};
use edgerunner_tests::{Options, Stack, eventually};
use serde_json::Value;

/// The labels of the one container that runs.
async fn container(stack: &Stack) -> Result<HashMap<String, String>> {
    eventually("one container runs", async || {
        let running = stack.containers.running().await?;
        ensure!(running.len() == 1, "{} containers run", running.len());
        Ok(running.into_iter().next().and_then(|it| it.labels))
    })
    .await
}

#[tokio::test]
async fn a_job_runs_in_a_container_that_is_gone_afterwards() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        // It runs until it is cancelled.
        let id = stack.queue(600.0);
        let taken = stack.in_progress(id).await?.runner.context("no runner")?;
        let labels = container(stack).await?;
        let label = |name: &str| labels.get(&format!("dev.edgerunner.{name}")).cloned();
        assert_eq!(label("runner").as_ref(), Some(&taken.runner_name));
        assert_eq!(label("pool").as_deref(), Some("default"));
        assert_eq!(label("target").as_deref(), Some("repo:acme/app"));
        assert!(label("launched").is_some());
        stack.busy(id).await?;

        let id_text = id.to_string();
        let jobs = stack.sidecar.print(&["jobs"]).await?;
        assert!(jobs.contains(&id_text) && jobs.contains("in_progress"), "{jobs}");
        assert!(jobs.contains(&taken.runner_name), "{jobs}");
        let runners = stack.sidecar.print(&["runners"]).await?;
        assert!(runners.contains(&taken.runner_name) && runners.contains("busy"), "{runners}");
        let status = stack.sidecar.print(&["status"]).await?;
        assert!(status.contains("default") && status.contains("self-hosted"), "{status}");

        stack.cancel(id).await?;
        let job = stack.known_as_completed(id).await?;
        assert_eq!(job["conclusion"], "cancelled");
        stack.settled().await?;

        let sidecar = &stack.sidecar;
        assert_eq!(sidecar.json(&["jobs"]).await?[0]["id"], id);
        assert_eq!(sidecar.json(&["jobs", "--state", "completed"]).await?[0]["pool"], "default");
        let shown = stack.sidecar.print(&["jobs", "show", &id_text]).await?;
        assert!(shown.contains("cancelled") && shown.contains("URL:"), "{shown}");
        assert_eq!(sidecar.json(&["status"]).await?["runners_live"], 0);
        assert_eq!(sidecar.json(&["runners"]).await?, Value::Array(Vec::new()));
        let runner = sidecar.json(&["runners", "--all"]).await?[0].clone();
        assert_eq!(runner["name"], taken.runner_name);
        assert_eq!((&runner["phase"], &runner["why"]), (&"gone".into(), &"its job is done".into()));
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_job_is_not_a_failed_runner() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let request =
            JobRequest { seconds: 0.1, conclusion: Conclusion::Failure, ..JobRequest::default() };
        let id = stack.sandbox.queue_job(&request);
        stack.completed(id).await?;
        assert_eq!(stack.known_as_completed(id).await?["conclusion"], "failure");
        stack.settled().await?;
        assert_eq!(stack.sidecar.status().await?["failures"], serde_json::json!([]));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn runners_can_belong_to_the_organization() {
    let options = Options::default().sidecar("RUNNER_SCOPE", "organization");
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.at_work().await?;
        let labels = container(stack).await?;
        assert_eq!(labels.get("dev.edgerunner.target").map(String::as_str), Some("org:acme"));
        let calls = stack.sandbox.calls();
        assert!(
            calls.iter().any(|it| it.path == "/orgs/acme/actions/runners/generate-jitconfig"),
            "{calls:?}"
        );
        stack.cancel(id).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn runners_can_belong_to_the_enterprise() {
    let options = Options::default().enterprise("Acme-Inc").sidecar("RUNNER_SCOPE", "enterprise");
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.at_work().await?;
        let labels = container(stack).await?;
        let target = labels.get("dev.edgerunner.target").map(String::as_str);
        assert_eq!(target, Some("enterprise:acme-inc"));
        let runners = stack.sandbox.runners();
        let scopes: Vec<_> = runners.iter().map(|runner| &runner.scope).collect();
        assert_eq!(scopes, [&Scope::Enterprise("acme-inc".to_owned())]);
        let path = "/enterprises/acme-inc/actions/runners/generate-jitconfig";
        let calls = stack.sandbox.calls();
        assert!(calls.iter().any(|call| call.path == path), "{calls:?}");
        stack.cancel(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

/// Without an enterprise there is no place to register a runner.
#[tokio::test]
async fn a_job_outside_any_enterprise_waits_and_says_so() {
    let options = Options::default().sidecar("RUNNER_SCOPE", "enterprise");
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "no_pool_in_scope").await?;
        assert!(message.contains("enterprise"), "{message}");
        assert_eq!(stack.launches(), 0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn images_that_register_themselves_get_a_token() {
    for (scope, path) in [
        ("repository", "/repos/acme/app"),
        ("organization", "/orgs/acme"),
        ("enterprise", "/enterprises/acme-inc"),
    ] {
        let options = Options::default()
            .enterprise("acme-inc")
            .sidecar("RUNNER_CONTRACT", "registration-token")
            .sidecar("RUNNER_SCOPE", scope);
        Stack::run(options, async |stack| -> Result<()> {
            let id = stack.queue(0.1);
            let job = stack.completed(id).await?;
            assert_eq!(job.conclusion, Some(Conclusion::Success));
            let path = format!("{path}/actions/runners/registration-token");
            let calls = stack.sandbox.calls();
            assert!(calls.iter().any(|call| call.path == path), "{calls:?}");
            assert_eq!(stack.launches(), 0);
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_unused_runner_is_removed_after_its_job_was_cancelled() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        // Time to cancel the job before it has a runner.
        stack.sandbox.set_faults(Faults {
            requests: vec![RequestFault {
                path: Some("generate-jitconfig".into()),
                ..Fault::Latency { ms: 1_000 }.into()
            }],
            ..Faults::default()
        });
        let id = stack.queue(0.1);
        eventually("a launch is in progress", async || Ok((stack.launches() > 0).then_some(())))
            .await?;
        stack.sandbox.cancel_job(id)?;
        stack.known_as_completed(id).await?;
        eventually("the runner starts", async || {
            Ok((stack.containers.started() == 1).then_some(()))
        })
        .await?;
        stack.settled().await?;
        assert_eq!(stack.launches(), 1);
        assert_eq!(stack.sandbox.job(id).context("no job")?.status, JobStatus::Completed);
        Ok(())
    })
    .await;
}
