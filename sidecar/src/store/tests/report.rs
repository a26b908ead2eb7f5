//! Reports.

use super::{Database, deliver, delivery, runner};
use crate::store::*;
use edgerunner_scheduler::model::{JobKey, JobState};

const ALWAYS: Period = Period { since: 0, until: 1_000_000 };

/// A job that has run.
struct Ran {
    id: u64,
    repository: &'static str,
    workflow: &'static str,
    labels: &'static [&'static str],
    runner: &'static str,
    conclusion: &'static str,
    /// When it was queued, started and completed.
    times: [u64; 3],
}

const RAN: Ran = Ran {
    id: 1,
    repository: "acme/app",
    workflow: "CI",
    labels: &["linux"],
    runner: "a",
    conclusion: "success",
    times: [1_000, 2_000, 62_000],
};

async fn store_job(store: &Store, ran: &Ran) {
    let states = [JobState::Queued, JobState::InProgress, JobState::Completed];
    for (state, at) in states.into_iter().zip(ran.times) {
        let mut next = delivery(&format!("{}-{}", ran.id, state.as_str()), ran.id, state);
        (next.received_at, next.job.queued_at) = (at, at);
        next.job.key = JobKey::new(ran.id, 1).on(Host::new("github.com"));
        next.job.repository = ran.repository.into();
        next.job.labels = ran.labels.iter().map(|it| (*it).to_owned()).collect();
        next.details.workflow_name = ran.workflow.into();
        if state != JobState::Queued {
            next.runner_name = ran.runner.into();
        }
        if state == JobState::Completed {
            next.conclusion = ran.conclusion.into();
        }
        deliver(store, next).await.unwrap();
    }
}

/// Host, repository, name, jobs and how long they ran.
fn shown(report: &Report) -> Vec<(&str, &str, &str, u64, u64)> {
    let groups = report.groups.iter();
    groups.map(|it| (&*it.host, &*it.repository, &*it.name, it.jobs, it.ran_ms)).collect()
}

pub(super) async fn a_report_groups_what_completed_jobs_used(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let lib = Ran { id: 3, repository: "acme/lib", conclusion: "failure", runner: "b", ..RAN };
    for ran in [
        RAN,
        Ran {
            id: 2,
            repository: "Acme/App",
            workflow: "Docs",
            labels: &["Linux", "gpu", "GPU"],
            ..RAN
        },
        lib,
        Ran { id: 4, conclusion: "cancelled", times: [1_000, 1_000, 1_500], ..RAN },
    ] {
        store_job(&store, &ran).await;
    }
    let end = |name: &str| Some(name.to_owned());
    let peak = Peak { memory_bytes: Some(64), cpu_millis: Some(1_500) };
    store.save_runner(RunnerRecord { peak, end: None, ..runner("a") }).await.unwrap();
    let killed = RunnerRecord { pool: "gpu".into(), end: end("out_of_memory"), ..runner("b") };
    store.save_runner(killed).await.unwrap();

    let by = async |by| store.report(by, ALWAYS).await.unwrap();
    let repositories = by(ReportBy::Repository).await;
    assert_eq!(
        shown(&repositories),
        [("github.com", "acme/app", "", 3, 120_500), ("github.com", "acme/lib", "", 1, 60_000)]
    );
    let [app, lib] = &repositories.groups[..] else { panic!("{repositories:?}") };
    assert_eq!((app.failed, app.out_of_memory, app.end_unknown), (0, 0, 3));
    assert_eq!((app.memory_peak_bytes, app.cpu_peak_millis), (Some(64), Some(1_500)));
    assert_eq!((lib.failed, lib.out_of_memory, lib.end_unknown), (1, 1, 0));
    assert_eq!((lib.memory_peak_bytes, lib.cpu_peak_millis), (None, None));
    assert_eq!(
        shown(&by(ReportBy::Workflow).await),
        [
            ("github.com", "acme/app", "CI", 2, 60_500),
            ("github.com", "Acme/App", "Docs", 1, 60_000),
            ("github.com", "acme/lib", "CI", 1, 60_000),
        ]
    );
    let pools = by(ReportBy::Pool).await;
    assert_eq!(shown(&pools), [("", "", "default", 3, 120_500), ("", "", "gpu", 1, 60_000)]);
    let labels = by(ReportBy::Label).await;
    assert_eq!(shown(&labels), [("", "", "linux", 4, 180_500), ("", "", "gpu", 1, 60_000)]);
    let total = labels.total.unwrap();
    assert_eq!((total.jobs, total.ran_ms, total.failed, total.out_of_memory), (4, 180_500, 1, 1));
    assert_eq!(labels.left_out, LeftOut::default());

    let late = Period { since: 62_001, ..ALWAYS };
    let nothing = store.report(ReportBy::Pool, late).await.unwrap();
    assert_eq!((nothing.groups, nothing.total, nothing.more), (vec![], None, false));
    let exact =
        store.report(ReportBy::Pool, Period { since: 62_000, until: 62_000 }).await.unwrap();
    assert_eq!(exact.total.unwrap().jobs, 3);
}

pub(super) async fn a_median_and_a_percentile_are_times_that_jobs_waited(database: &impl Database) {
    let (store, _closed) = database.open().await;
    store.save_runner(runner("a")).await.unwrap();
    for id in 1..=20 {
        // Not in the order of their times.
        let waited = (id * 7 % 20 + 1) * 1_000;
        store_job(&store, &Ran { id, times: [1_000, 1_000 + waited, 90_000], ..RAN }).await;
    }
    let total = store.report(ReportBy::Repository, ALWAYS).await.unwrap().total.unwrap();
    assert_eq!((total.waited_median_ms, total.waited_p95_ms), (10_000, 19_000));
}

pub(super) async fn jobs_without_times_or_runners_of_ours_are_left_out_and_counted(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    store.save_runner(runner("a")).await.unwrap();
    for ran in [
        RAN,
        Ran { id: 2, runner: "", conclusion: "cancelled", ..RAN },
        Ran { id: 3, runner: "GitHub Actions 12", ..RAN },
        // A clock was set back: before the start, and before the end.
        Ran { id: 4, times: [3_000, 2_000, 62_000], ..RAN },
        Ran { id: 5, times: [1_000, 62_000, 2_000], ..RAN },
        // Its start was not reported.
        Ran { id: 6, times: [1_000, 2_000, 2_000], ..RAN },
        Ran { id: 7, conclusion: "unknown", ..RAN },
        // It will be completed in the future.
        Ran { id: 8, times: [1_000, 2_000, 2_000_000], ..RAN },
    ] {
        store_job(&store, &ran).await;
    }
    let report = store.report(ReportBy::Repository, ALWAYS).await.unwrap();
    assert_eq!(shown(&report), [("github.com", "acme/app", "", 1, 60_000)]);
    let left = LeftOut { never_started: 1, on_other_runners: 1, without_times: 5 };
    assert_eq!(report.left_out, left);
}
