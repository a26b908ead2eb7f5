//! Draining: nothing is launched until it is resumed.

use anyhow::{Context, Result};
use edgerunner_sandbox::{Conclusion, JobStatus};
use edgerunner_tests::{Options, Stack};

/// The token of the sidecar's API.
const API_TOKEN: &str = "api-token-sesame";

fn options() -> Options {
    Options::default().sidecar("SERVER_API_TOKEN", API_TOKEN)
}

#[tokio::test]
async fn drained_the_running_job_finishes_and_others_wait_over_a_restart_until_resumed() {
    Stack::run(options(), async |stack| -> Result<()> {
        let running = stack.queue(5.0);
        stack.in_progress(running).await?;
        stack.busy(running).await?;
        let said = stack.sidecar.print(&["drain"]).await?;
        assert!(said.contains("All pools are draining"), "{said}");
        let waiting = stack.queue(0.1);
        stack.waits_for(waiting, "draining").await?;
        let job = stack.completed(running).await?;
        assert_eq!(job.conclusion, Some(Conclusion::Success));
        stack.settled().await?;

        stack.sidecar.terminate().await?;
        stack.sidecar.start().await?;
        let message = stack.waits_for(waiting, "draining").await?;
        assert!(message.contains("edgerunner resume"), "{message}");
        assert_eq!((stack.launches(), stack.containers.started()), (1, 1));

        let said = stack.sidecar.print(&["resume"]).await?;
        assert!(said.contains("No pool is draining"), "{said}");
        stack.completed(waiting).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (2, 2));
        assert!(!stack.sidecar.log()?.contains(API_TOKEN));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn one_pool_is_drained_and_resumed_by_itself() {
    let options = options().file(
        r#"
        [[pools]]
        name = "small"
        labels = ["small"]

        [[pools]]
        name = "large"
        labels = ["large"]
        "#,
    );
    Stack::run(options, async |stack| -> Result<()> {
        let said = stack.sidecar.print(&["drain", "--pool", "large"]).await?;
        assert!(said.contains("Draining: large."), "{said}");
        let large = stack.queue_for("large");
        let message = stack.waits_for(large, "draining").await?;
        assert!(message.contains("resume --pool large"), "{message}");

        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        let small = stack.queue_for("small");
        stack.completed(small).await?;
        stack.waits_for(large, "draining").await?;
        let job = stack.sandbox.job(large).context("no job")?;
        assert_eq!((job.status, stack.launches()), (JobStatus::Queued, 1));

        stack.sidecar.print(&["resume", "--pool", "large"]).await?;
        stack.completed(large).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nobody_drains_without_the_token() {
    Stack::run(options(), async |stack| -> Result<()> {
        stack.sidecar.configure("SERVER_API_TOKEN", "another-word");
        for command in ["drain", "resume"] {
            let output = stack.sidecar.run(&[command]).await?;
            assert_eq!(output.status.code(), Some(1), "{output:?}");
        }
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}
