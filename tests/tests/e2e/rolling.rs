//! An upgrade of sidecars that share a store: one after the other is restarted under load.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use edgerunner_sandbox::{JobRequest, JobStatus};
use edgerunner_testkit::postgres::Postgres;
use edgerunner_tests::{Options, Stack, eventually};

use crate::restart::Load;

const ROUNDS: usize = 2;
/// Far less than a lease is valid: the one that ends hands it over.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);

/// The sidecar that holds the lease, and its term.
fn holder(postgres: &Postgres, database: &str) -> Result<Option<(String, u64)>> {
    let query = "SELECT holder, term FROM edgerunner.lease WHERE until > clock_timestamp()";
    let found = postgres.sql(database, query)?;
    let Some((holder, term)) = found.split_once('|') else { return Ok(None) };
    Ok(Some((holder.to_owned(), term.parse()?)))
}

#[tokio::test]
async fn a_rolling_restart_of_sidecars_that_share_a_store_loses_and_repeats_nothing() -> Result<()>
{
    let postgres = Postgres::shared();
    let database = postgres.database()?;
    let options = Options::default()
        .sidecars(2)
        .store_url(&postgres.url(&database))
        .sidecar("RUNNER_MAX", "4")
        // A runner whose job is late is not replaced.
        .sidecar("RUNNER_IDLE_TIMEOUT_SECONDS", "60");
    Stack::run(options, async |stack| -> Result<()> {
        let Stack { envoy, sidecar, others, sandbox, .. } = stack;
        let mut jobs = Vec::new();
        let sent = Load::during(envoy, async |load| {
            for _ in 0..ROUNDS {
                for sidecar in [&mut *sidecar].into_iter().chain(&mut *others) {
                    let queued = JobRequest { seconds: 0.3, count: 4, ..JobRequest::default() };
                    jobs.extend(sandbox.queue_jobs(&queued));
                    let holder = async || holder(postgres, &database);
                    let (_, term) = eventually("a sidecar plans", holder).await?;
                    let began = format!("\"this sidecar plans\",\"term\":{term}}}");
                    let planned = sidecar.log_lines(&[&began])? > 0;
                    sidecar.terminate().await?;
                    let ended = Instant::now();
                    eventually("the other sidecar plans", async || {
                        let now = holder().await?;
                        Ok(now.filter(|(_, now)| *now > term || !planned))
                    })
                    .await?;
                    let took = ended.elapsed();
                    ensure!(took < HANDED_OVER_WITHIN, "the lease was taken after {took:?}");
                    sidecar.start().await?;
                    load.some_answered().await?;
                }
            }
            for job in &jobs {
                eventually("the job is completed", async || {
                    let job = sandbox.job(*job).filter(|it| it.status == JobStatus::Completed);
                    Ok(job.map(drop))
                })
                .await?;
            }
            Ok(())
        })
        .await?;
        println!("{} deliveries accepted, the slowest in {:?}", sent.count, sent.slowest);
        let stored = postgres
            .sql(&database, "SELECT count(*) FROM edgerunner.deliveries WHERE job_id <= 1000000")?;
        ensure!(stored == sent.count.to_string(), "{stored} of {} stored", sent.count);
        let failed: Vec<_> =
            sandbox.deliveries().into_iter().filter(|it| it.status_code != 202).collect();
        ensure!(failed.is_empty(), "{failed:?}");
        let (launches, jobs) = (stack.launches(), jobs.len());
        ensure!(launches == jobs, "{launches} launches for {jobs} jobs");
        Ok(())
    })
    .await;
    Ok(())
}
