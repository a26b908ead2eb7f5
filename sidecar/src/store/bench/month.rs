//! A benchmark of a store after a busy month: how long it takes to open it, and how long a commit
//! waits while old records are deleted.

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::runtime;

use crate::store::{Closed, DAY_MS, Delivery, Error, JobDetails, Peak, RunnerRecord, Store};
use edgerunner_scheduler::model::{Host, Job, JobKey, JobState, UnixMs, Visibility};

const JOBS: u64 = 1_000_000;
/// Of those, they are not over.
const OPEN_JOBS: u64 = 1_000;
const RUNNERS: u64 = 300_000;
const PRESENT_RUNNERS: u64 = 200;
/// Commits that are measured without pruning.
const COMMITS: u64 = 1_000;
/// Writes that are queued together.
const TOGETHER: u64 = 1_000;
/// Records arrive evenly over this time; those of the first days are old at its end.
const SPAN_MS: u64 = 33 * DAY_MS;

const OPEN_LIMIT: Duration = Duration::from_secs(2);
/// By which pruning may prolong a commit.
const COMMIT_LIMIT: Duration = Duration::from_millis(50);

pub(super) type Failure = Box<dyn std::error::Error>;

/// Prints what was measured in a new store at `path`. Returns whether it is within the limits.
pub fn measure(path: &Path) -> Result<bool, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (store, closed) = Store::open(path, Host::default(), |_| {})?;
        let begun = Instant::now();
        fill(&store).await?;
        close(store, closed).await;
        println!("{JOBS} jobs, {RUNNERS} runners: stored in {:.0?}", begun.elapsed());

        let begun = Instant::now();
        let (store, closed) = Store::open(path, Host::default(), |_| {})?;
        let opened = begun.elapsed();
        read_as_at_start(&store).await?;
        let started = begun.elapsed();
        println!("opened in {opened:.0?}, read what a start needs in {:.0?}", started - opened);

        let mut alone = Duration::ZERO;
        for job in 1..=COMMITS {
            alone = alone.max(commit(&store, JOBS + job).await?);
        }
        let (pruned, longest) = prune(&store, JOBS + COMMITS + 1).await?;
        println!(
            "pruned in {pruned:.0?}; the longest commit took {longest:.1?} (before: {alone:.1?})"
        );
        close(store, closed).await;
        Ok(started <= OPEN_LIMIT && longest <= alone + COMMIT_LIMIT)
    })
}

async fn close(store: Store, closed: Closed) {
    drop(store);
    closed.wait().await;
}

/// When the record of this number was made.
fn at(number: u64, of: u64) -> UnixMs {
    SPAN_MS * number / of
}

async fn fill(store: &Store) -> Result<(), Error> {
    for first in (0..JOBS).step_by(TOGETHER as usize) {
        let deliveries = (first..first + TOGETHER).map(|job| {
            let open = job >= JOBS - OPEN_JOBS;
            let state = if open { JobState::InProgress } else { JobState::Completed };
            delivery(job + 1, state, at(job, JOBS))
        });
        store.deliver(deliveries.collect::<Vec<_>>().into()).await?;
    }
    for first in (0..RUNNERS).step_by(TOGETHER as usize) {
        let saved = (first..first + TOGETHER).map(|number| store.save_runner(runner(number)));
        join_all(saved).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    Ok(())
}

async fn read_as_at_start(store: &Store) -> Result<(), Error> {
    assert_eq!(store.open_jobs().await?.len() as u64, OPEN_JOBS);
    assert_eq!(store.present_runners().await?.len() as u64, PRESENT_RUNNERS);
    store.draining().await?;
    store.webhooks().await?;
    Ok(())
}

/// How long it takes, and the longest commit of a delivery meanwhile.
async fn prune(store: &Store, first_job: u64) -> Result<(Duration, Duration), Error> {
    let begun = Instant::now();
    let mut pruning = pin!(store.prune(SPAN_MS));
    let mut longest = Duration::ZERO;
    let mut pruned = false;
    for job in first_job.. {
        let mut committing = pin!(commit(store, job));
        let took = loop {
            tokio::select! {
                took = &mut committing => break took?,
                done = &mut pruning, if !pruned => {
                    done?;
                    pruned = true;
                }
            }
        };
        longest = longest.max(took);
        if pruned {
            break;
        }
    }
    Ok((begun.elapsed(), longest))
}

/// How long it takes to store a delivery of a new job.
async fn commit(store: &Store, job: u64) -> Result<Duration, Error> {
    let begun = Instant::now();
    store.deliver(Arc::new([delivery(job, JobState::Queued, SPAN_MS)])).await?;
    Ok(begun.elapsed())
}

pub(super) fn delivery(job: u64, state: JobState, at: UnixMs) -> Delivery {
    let repository = format!("acme/service-{}", job % 500);
    Delivery {
        hook: String::new(),
        hook_id: 412_345_678,
        hook_target_type: "organization".into(),
        hook_target_id: 98_765_432,
        received_at: at,
        state,
        job: Job {
            key: JobKey::new(40_000_000_000 + job, 1).on(Host::new("github.com")),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 20_000_000_000 + job / 5,
            from_fork: None,
            labels: vec!["self-hosted".into(), "linux".into()],
            queued_at: at,
            // Like a GUID, in no order.
            delivery: format!("{:016x}-{job:016x}", job.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            repository: repository.clone(),
        },
        details: JobDetails {
            name: "build and test (ubuntu, stable)".into(),
            workflow_name: "Continuous integration".into(),
            head_branch: "main".into(),
            html_url: format!("https://github.com/{repository}/actions/runs/{job}/job/{job}"),
            created_at: Some(at),
        },
        conclusion: String::new(),
        runner_name: format!("edge-default-{job:012x}"),
    }
}

fn runner(number: u64) -> RunnerRecord {
    let present = number >= RUNNERS - PRESENT_RUNNERS;
    let at = at(number, RUNNERS);
    RunnerRecord {
        name: format!("edge-default-{:012x}", number.wrapping_mul(0x9e37_79b9_7f4a) >> 16),
        pool: "default".into(),
        provider: String::new(),
        node: None,
        host: Host::new("github.com"),
        target: "org:acme".into(),
        phase: if present { "busy" } else { "gone" }.into(),
        created_at: at,
        started_at: Some(at),
        online_at: None,
        credential: None,
        registration_id: Some(number),
        job: None,
        why: None,
        end: None,
        failed: number.is_multiple_of(100),
        gone_at: (!present).then_some(at),
        peak: Peak::default(),
    }
}
