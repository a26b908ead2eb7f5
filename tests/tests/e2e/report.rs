//! Reports: what completed jobs used.

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{Conclusion, JobRequest, JobStatus};
use edgerunner_tests::{Options, Stack, eventually};

#[tokio::test]
async fn a_report_shows_what_jobs_used_and_metrics_count_them() {
    let options = Options::default().sidecar("SERVER_API_TOKEN", "api-token-sesame");
    Stack::run(options, async |stack| -> Result<()> {
        // Longer than the time between two measurements.
        let long = stack.queue(12.0);
        let fails = JobRequest { conclusion: Conclusion::Failure, ..JobRequest::default() };
        let failed = stack.sandbox.queue_job(&fails);
        stack.completed(failed).await?;
        ensure!(stack.completed(long).await?.status == JobStatus::Completed);
        stack.settled().await?;

        let report = async |arguments: &[&str]| {
            stack.sidecar.print(&[&["report", "--since", "1h"], arguments].concat()).await
        };
        let shown = eventually("both jobs are in the report", async || {
            let shown = stack.sidecar.json(&["report", "--since", "1h"]).await?;
            Ok((shown["total"]["jobs"] == 2 && shown["total"]["memory_peak_bytes"].is_u64())
                .then_some(shown))
        })
        .await?;
        let total = &shown["total"];
        ensure!(total["failed"] == 1 && total["out_of_memory"] == 0, "{shown}");
        let ran_ms = total["ran_ms"].as_u64().context("no run time")?;
        ensure!((12_000..60_000).contains(&ran_ms), "{shown}");
        ensure!(shown["groups"][0]["host"].is_string(), "{shown}");
        ensure!(shown["left_out"]["without_times"] == 0, "{shown}");

        let priced = report(&["--by", "pool", "--price", "60"]).await?;
        ensure!(priced.contains("COST") && priced.contains("default"), "{priced}");
        let csv = report(&["--by", "label", "--csv"]).await?;
        ensure!(csv.starts_with("label,jobs,minutes,") && csv.contains("self-hosted,2,"), "{csv}");
        let refused = stack.sidecar.run(&["report", "--since", "36d"]).await?;
        ensure!(refused.status.code() == Some(2), "{refused:?}");

        let metrics = stack.sidecar.metrics().await?;
        for conclusion in ["success", "failure"] {
            let labels = format!(r#"{{pool="default",conclusion="{conclusion}"}}"#);
            for name in ["edgerunner_jobs_completed_total", "edgerunner_job_run_seconds_count"] {
                let sample = format!("{name}{labels} 1\n");
                ensure!(metrics.contains(&sample), "no {sample} in {metrics}");
            }
        }
        Ok(())
    })
    .await;
}
