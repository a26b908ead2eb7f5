//! The number of runners for a number of jobs.

use anyhow::{Context, Result};
use edgerunner_sandbox::{
    DeliveryFault, DeliveryFaultKind, Fault, Faults, JobRequest, JobStatus, RepositoryName,
    RequestFault,
};
use edgerunner_tests::{Options, Stack, Webhook, eventually};
use futures_util::future::try_join_all;

#[tokio::test]
async fn twenty_jobs_on_at_most_five_runners_are_all_served() {
    let options = Options::default().sidecar("RUNNER_MAX", "5");
    Stack::run(options, async |stack| -> Result<()> {
        let long = JobRequest { seconds: 600.0, count: 5, ..JobRequest::default() };
        let long = stack.sandbox.queue_jobs(&long);
        for id in &long {
            stack.busy(*id).await?;
        }
        let short = JobRequest { seconds: 0.3, count: 15, ..JobRequest::default() };
        let short = stack.sandbox.queue_jobs(&short);
        for id in long {
            stack.cancel(id).await?;
        }
        for id in short {
            stack.completed(id).await?;
        }
        stack.settled().await?;
        // Five were used, and never more.
        assert_eq!(stack.containers.peak(), 5);
        assert_eq!((stack.containers.started(), stack.launches()), (20, 20));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_beyond_the_maximum_says_so_and_waits() {
    let options = Options::default().sidecar("RUNNER_MAX", "1");
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.at_work().await?;
        let second = stack.queue(0.1);
        stack.waits_for(second, "pool_max").await?;
        let jobs = stack.sidecar.print(&["jobs"]).await?;
        assert!(jobs.contains("the pool is at its max of 1"), "{jobs}");
        // The store has the reason as well, until the job runs.
        let stored = async |id: u64| -> Result<serde_json::Value> {
            Ok(stack.sidecar.job(id).await?["waiting"].clone())
        };
        eventually("the reason is stored", async || {
            Ok((stored(second).await? == "pool_max").then_some(()))
        })
        .await?;
        stack.sandbox.cancel_job(first)?;
        stack.completed(second).await?;
        assert_eq!(stored(second).await?, serde_json::Value::Null);
        assert_eq!(stack.containers.peak(), 1);
        Ok(())
    })
    .await;
}

/// A job of the sandbox whose `queued` has not been delivered yet.
async fn unannounced(stack: &Stack) -> Result<(u64, Webhook)> {
    let lost = DeliveryFault {
        action: Some("queued".into()),
        next: Some(1),
        ..DeliveryFault::from(DeliveryFaultKind::Lost)
    };
    stack.sandbox.set_faults(Faults { deliveries: vec![lost], ..Faults::default() });
    let id = stack.queue(0.5);
    let payload = eventually("its delivery is lost", async || {
        let deliveries = stack.sandbox.deliveries();
        Ok(deliveries.iter().find(|it| it.job_id == Some(id)).map(|it| it.payload().clone()))
    })
    .await?;
    Ok((id, Webhook::new("workflow_job", payload)))
}

#[tokio::test]
async fn one_job_delivered_five_times_at_once_gets_one_runner() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let (id, webhook) = unannounced(stack).await?;
        let copies: Vec<_> =
            (0..5).map(|_| Webhook::new("workflow_job", webhook.body.clone())).collect();
        let answers = try_join_all(copies.iter().map(|copy| stack.send(copy))).await?;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn one_delivery_sent_five_times_at_once_is_accepted_once() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let (id, webhook) = unannounced(stack).await?;
        let answers = try_join_all((0..5).map(|_| stack.send(&webhook))).await?;
        let count = |outcome| answers.iter().filter(|it| it.outcome() == outcome).count();
        assert_eq!((count("accepted"), count("duplicate")), (1, 4), "{answers:?}");
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn jobs_are_served_though_deliveries_come_twice_and_out_of_order() {
    let options = Options::default().sidecar("RUNNER_MAX", "3");
    Stack::run(options, async |stack| -> Result<()> {
        let often = |fault| DeliveryFault { probability: 0.3, ..DeliveryFault::from(fault) };
        stack.sandbox.set_faults(Faults {
            deliveries: vec![
                often(DeliveryFaultKind::Doubled),
                often(DeliveryFaultKind::Delayed { ms: 400 }),
            ],
            seed: 7,
            ..Faults::default()
        });
        let request = JobRequest { seconds: 0.2, count: 8, ..JobRequest::default() };
        for id in stack.sandbox.queue_jobs(&request) {
            stack.completed(id).await?;
        }
        stack.settled().await?;
        assert!(stack.containers.peak() <= 3);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_warm_runner_takes_the_job_and_is_replaced() {
    let options = Options::default()
        .sidecar("RUNNER_MIN_IDLE", "1")
        .sidecar("RUNNER_REPOSITORIES", "acme/app");
    Stack::run(options, async |stack| -> Result<()> {
        let warm = eventually("a runner is online", async || {
            Ok(stack.sandbox.runners().into_iter().find(|it| it.online()))
        })
        .await?;
        assert_eq!(stack.launches(), 1);
        let id = stack.at_work().await?;
        let job = stack.sandbox.job(id).context("no such job")?;
        assert_eq!(job.runner.context("no runner")?.runner_name, warm.name);
        eventually("another runner is online", async || {
            let runners = stack.sandbox.runners();
            Ok(runners.iter().any(|it| it.online() && it.name != warm.name).then_some(()))
        })
        .await?;
        // The first one and its replacement: none for the job. A runner may be online before
        // Docker reports its container.
        eventually("two containers have started", async || {
            Ok((stack.containers.started() == 2).then_some(()))
        })
        .await?;
        assert_eq!(stack.launches(), 2);

        stack.cancel(id).await?;
        stack.sidecar.terminate().await?;
        stack.sidecar.configure("RUNNER_MIN_IDLE", "0");
        stack.sidecar.start().await?;
        stack.settled().await?;
        assert_eq!(stack.launches(), 2);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_unused_runner_is_replaced_by_one_for_another_repository() {
    let options =
        Options::default().sidecar("RUNNER_MAX", "1").sidecar("RUNNER_IDLE_TIMEOUT_SECONDS", "600");
    Stack::run(options, async |stack| -> Result<()> {
        // Time to cancel the job before it has a runner.
        let slow = RequestFault {
            path: Some("generate-jitconfig".into()),
            ..RequestFault::from(Fault::Latency { ms: 1_000 })
        };
        stack.sandbox.set_faults(Faults { requests: vec![slow], ..Faults::default() });
        let cancelled = stack.queue(0.1);
        eventually("a launch is in progress", async || Ok((stack.launches() > 0).then_some(())))
            .await?;
        stack.sandbox.cancel_job(cancelled)?;
        let repository = RepositoryName { owner: "acme".into(), name: "lib".into() };
        let request = JobRequest { repository, seconds: 0.1, ..JobRequest::default() };
        let elsewhere = stack.sandbox.queue_job(&request);
        stack.waits_for(elsewhere, "pool_max").await?;
        stack.completed(elsewhere).await?;
        stack.settled().await?;
        assert_eq!((stack.containers.started(), stack.containers.peak()), (2, 1));
        Ok(())
    })
    .await;
}

/// A runner may get another job than the one that it was started for.
#[tokio::test]
async fn a_runner_that_another_job_takes_leaves_nobody_behind() {
    let options = Options::default().sidecar("RUNNER_MAX", "1");
    Stack::run(options, async |stack| -> Result<()> {
        // GitHub gives a runner the oldest job, whose delivery comes last.
        let (first, webhook) = unannounced(stack).await?;
        let second = stack.queue(0.2);
        stack.completed(first).await?;
        assert_eq!(stack.send(&webhook).await?.status, 202);
        stack.completed(second).await?;
        stack.settled().await?;
        assert_eq!(stack.containers.started(), 2);
        let first = stack.sandbox.job(first).context("no job")?;
        assert_eq!(first.status, JobStatus::Completed);
        Ok(())
    })
    .await;
}
