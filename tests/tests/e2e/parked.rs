//! Parked runners.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use edgerunner_tests::{Options, Stack, eventually};
use serde_json::Value;

const PARKED: usize = 2;

fn options() -> Options {
    Options::default()
        .sidecar("RUNNER_PARKED", &PARKED.to_string())
        .sidecar("RUNNER_REPOSITORIES", "acme/app")
}

/// The names of the parked runners, once all are there.
async fn all_parked(stack: &Stack) -> Result<BTreeSet<String>> {
    eventually("all are parked", async || {
        let names = parked(&stack.sidecar.status().await?)?;
        ensure!(names.len() == PARKED, "{names:?}");
        Ok(Some(names))
    })
    .await
}

fn parked(status: &Value) -> Result<BTreeSet<String>> {
    let runners = status["runners"].as_array().context("no runners")?;
    let parked = runners.iter().filter(|runner| runner["phase"] == "parked");
    parked.map(|it| Ok(it["name"].as_str().context("no name")?.to_owned())).collect()
}

/// The runner that ran a job.
async fn runner_of(stack: &Stack, id: u64) -> Result<String> {
    Ok(stack.completed(id).await?.runner.context("no runner")?.runner_name)
}

/// Without parked runners nothing may be left.
async fn none_are_left(stack: &mut Stack) -> Result<()> {
    stack.sidecar.terminate().await?;
    stack.sidecar.configure("RUNNER_PARKED", "0");
    stack.sidecar.start().await?;
    stack.settled().await
}

#[tokio::test]
async fn a_parked_runner_is_woken_by_a_job_and_replaced() {
    Stack::run(options(), async |stack| -> Result<()> {
        let names = all_parked(stack).await?;
        let status = stack.sidecar.status().await?;
        assert_eq!(status["runners_live"], 0, "{status}");
        assert!(stack.sandbox.runners().iter().all(|runner| !runner.online()));
        assert_eq!(stack.containers.running().await?.len(), PARKED);
        let pools = stack.sidecar.print(&["pools"]).await?;
        assert!(pools.contains("PARKED"), "{pools}");
        let metrics = stack.sidecar.metrics().await?;
        let sample = r#"edgerunner_runners{pool="default",phase="parked"} 2"#;
        assert!(metrics.contains(sample), "{metrics}");

        let id = stack.queue(0.1);
        assert!(names.contains(&runner_of(stack, id).await?));
        let others = eventually("another one is parked", async || {
            let now = parked(&stack.sidecar.status().await?)?;
            Ok((now.len() == PARKED && now != names).then_some(now))
        })
        .await?;
        assert_eq!(others.intersection(&names).count(), PARKED - 1);
        none_are_left(stack).await
    })
    .await;
}

#[tokio::test]
async fn parked_runners_survive_a_kill_of_the_sidecar() {
    Stack::run(options(), async |stack| -> Result<()> {
        let names = all_parked(stack).await?;
        let launches = stack.launches();
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        assert_eq!(all_parked(stack).await?, names);
        assert_eq!(stack.launches(), launches);
        let id = stack.queue(0.1);
        assert!(names.contains(&runner_of(stack, id).await?));
        // With other settings they are renewed.
        stack.sidecar.terminate().await?;
        stack.sidecar.configure("RUNNER_LABELS", "linux,other");
        stack.sidecar.start().await?;
        eventually("all are new", async || {
            let now = parked(&stack.sidecar.status().await?)?;
            Ok((now.len() == PARKED && now.is_disjoint(&names)).then_some(()))
        })
        .await?;
        none_are_left(stack).await
    })
    .await;
}

#[tokio::test]
async fn a_job_does_not_wait_for_a_parked_runner_whose_container_is_gone() {
    Stack::run(options(), async |stack| -> Result<()> {
        let names = all_parked(stack).await?;
        for container in stack.containers.running().await? {
            stack.containers.remove(&container).await?;
        }
        let id = stack.queue(0.1);
        assert!(!names.contains(&runner_of(stack, id).await?));
        none_are_left(stack).await
    })
    .await;
}

#[tokio::test]
async fn a_job_does_not_wait_for_a_parked_runner_that_github_has_dropped() {
    Stack::run(options(), async |stack| -> Result<()> {
        let names = all_parked(stack).await?;
        for runner in stack.sandbox.runners() {
            stack.sandbox.unregister_runner(runner.id)?;
        }
        let id = stack.queue(0.1);
        assert!(!names.contains(&runner_of(stack, id).await?));
        none_are_left(stack).await
    })
    .await;
}

#[tokio::test]
async fn a_parked_runner_with_its_own_engine_is_created_and_not_started() {
    let options = options().dind().await.expect("an Engine");
    Stack::run(options, async |stack| -> Result<()> {
        let names = all_parked(stack).await?;
        assert_eq!(stack.containers.running().await?.len(), 0);
        let pools = stack.sidecar.print(&["pools"]).await?;
        assert!(pools.contains("2 (2 not started)"), "{pools}");
        let id = stack.queue(0.1);
        assert!(names.contains(&runner_of(stack, id).await?));
        none_are_left(stack).await
    })
    .await;
}
