//! Jobs that are run again because their runner was lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use edgerunner_sandbox::{Conclusion, JobStatus};
use edgerunner_tests::{Options, Stack, eventually_within};

/// GitHub waits for a runner that is silent.
const NOTICED_WITHIN: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_job_whose_container_is_gone_is_run_again_once() {
    let options = Options::default().sidecar("SCHEDULER_RERUN_LOST", "true");
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.queue(20.0);
        stack.in_progress(job).await?;
        stack.busy(job).await?;
        let runner = stack.sandbox.job(job).and_then(|job| job.runner).context("no runner")?;
        // While nobody looks, so that it is gone and has not exited.
        stack.sidecar.terminate().await?;
        let removal = RemoveContainerOptionsBuilder::default().force(true).build();
        stack.containers.docker().remove_container(&runner.runner_name, Some(removal)).await?;
        stack.sidecar.start().await?;

        let again = eventually_within(NOTICED_WITHIN, "the job is run again", async || {
            let mut jobs = stack.sandbox.jobs().into_iter();
            Ok(jobs.rfind(|job| job.run_attempt == 2))
        })
        .await?;
        let lost = stack.sandbox.job(job).context("no job")?;
        ensure!(lost.conclusion == Some(Conclusion::Failure), "{lost:?}");
        ensure!(stack.completed(again.id).await?.conclusion == Some(Conclusion::Success));
        stack.settled().await?;
        let jobs = stack.sandbox.jobs();
        ensure!(jobs.len() == 2 && jobs.iter().all(|job| job.status == JobStatus::Completed));
        let metrics = stack.sidecar.metrics().await?;
        let sample = r#"edgerunner_lost_runs_total{pool="default",outcome="accepted"} 1"#;
        ensure!(metrics.contains(sample), "{metrics}");
        Ok(())
    })
    .await;
}
