//! What Prometheus is told. Labels are pools, phases, credentials with the accounts they
//! are for, and names from closed lists, so that no workflow can make their number grow.

use std::time::Duration;

use http::StatusCode;
use metrics::{Unit, with_recorder};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{control::clock, control::snapshot::Snapshot};
use edgerunner_scheduler::{
    model::{Cause, JobState},
    plan::{EndReason, Waiting},
};

const EVENTS: &str = "edgerunner_events_total";
const COMMIT: &str = "edgerunner_store_commit_seconds";
const QUEUE: &str = "edgerunner_job_queue_seconds";
const LAUNCH: &str = "edgerunner_launch_seconds";
const LAUNCH_STAGE: &str = "edgerunner_launch_stage_seconds";
const LAUNCH_FAILURES: &str = "edgerunner_launch_failures_total";
const BACK_OFFS: &str = "edgerunner_back_offs";
const RUNNERS_GONE: &str = "edgerunner_runners_gone_total";
const GITHUB_CALLS: &str = "edgerunner_github_calls_total";
const RATE_LIMIT: &str = "edgerunner_github_rate_limit";
const RATE_LIMIT_REMAINING: &str = "edgerunner_github_rate_limit_remaining";
const RATE_LIMIT_RESET: &str = "edgerunner_github_rate_limit_reset_timestamp_seconds";
const MISSED_REQUESTS: &str = "edgerunner_missed_requests_total";
const MISSED_REQUESTS_ALLOWED: &str = "edgerunner_missed_requests_allowed";
const MISSED_WAITING: &str = "edgerunner_missed_waiting";
const REDELIVERIES: &str = "edgerunner_missed_redeliveries_total";
const GIVEN_UP: &str = "edgerunner_missed_given_up_total";
const JOBS_FOUND: &str = "edgerunner_missed_jobs_found_total";
const RUNNERS: &str = "edgerunner_runners";
const RUNNERS_MAX: &str = "edgerunner_runners_max";
const RUNNERS_MIN_IDLE: &str = "edgerunner_runners_min_idle";
const JOBS_QUEUED: &str = "edgerunner_jobs_queued";
const JOBS_WAITING: &str = "edgerunner_jobs_waiting";
const JOBS_WAITING_LONGEST: &str = "edgerunner_jobs_waiting_longest_seconds";
const RECOVERED: &str = "edgerunner_recovered";

/// From a warm runner to a queue over lunch.
const QUEUE_BUCKETS: [f64; 13] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// From a container that starts at once to an image that is pulled.
const LAUNCH_BUCKETS: [f64; 11] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

const PHASES: [&str; 5] = ["provisioning", "starting", "idle", "busy", "leaving"];

/// Takes over the process's metrics. Once.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full(COMMIT.into()),
            &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0],
        )?
        .set_buckets_for_metric(Matcher::Full(QUEUE.into()), &QUEUE_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(LAUNCH.into()), &LAUNCH_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(LAUNCH_STAGE.into()), &LAUNCH_BUCKETS)?
        .install_recorder()?;
    with_recorder(|_| {
        describe_counter!(EVENTS, "Events submitted by the filter");
        describe_histogram!(
            COMMIT,
            Unit::Seconds,
            "Time of one commit, which may hold many events"
        );
        describe_histogram!(
            QUEUE,
            Unit::Seconds,
            "From the news that a job is queued to the news that a runner took it, by the job's pool"
        );
        describe_histogram!(LAUNCH, Unit::Seconds, "From the decision to a started container");
        describe_histogram!(
            LAUNCH_STAGE,
            Unit::Seconds,
            "One stage of a launch: image, turn, credentials, container, online"
        );
        describe_counter!(LAUNCH_FAILURES, "Launches that ended without a started container");
        describe_gauge!(BACK_OFFS, "What launches are held back from after failures, by the cause");
        describe_counter!(RUNNERS_GONE, "Runners removed, by the reason");
        describe_counter!(GITHUB_CALLS, "Requests to GitHub, by endpoint and status");
        describe_gauge!(RATE_LIMIT, "Requests to GitHub allowed in an hour");
        describe_gauge!(RATE_LIMIT_REMAINING, "Requests to GitHub left of this hour's");
        describe_gauge!(RATE_LIMIT_RESET, Unit::Seconds, "When all of them are left again");
        describe_counter!(MISSED_REQUESTS, "Requests spent on looking for missed webhooks");
        describe_gauge!(MISSED_REQUESTS_ALLOWED, "Requests an hour that may be spent on it");
        describe_gauge!(MISSED_WAITING, "1 while they are used up and something is due");
        describe_counter!(REDELIVERIES, "Webhooks that GitHub was asked to send again");
        describe_counter!(GIVEN_UP, "Webhooks that failed and are not asked for any more");
        describe_counter!(JOBS_FOUND, "Queued jobs that no webhook told of");
        describe_gauge!(RUNNERS, "Runners present");
        describe_gauge!(RUNNERS_MAX, "Most runners that a pool may have");
        describe_gauge!(RUNNERS_MIN_IDLE, "Runners kept idle at each target, by schedule");
        describe_gauge!(JOBS_QUEUED, "Jobs that wait for a runner of a pool");
        describe_gauge!(JOBS_WAITING, "Queued jobs by the reason why they wait");
        describe_gauge!(
            JOBS_WAITING_LONGEST,
            Unit::Seconds,
            "How long the one that has waited longest has, by the reason"
        );
        describe_gauge!(RECOVERED, "1 once Docker has answered and launches may begin");
    });
    Ok(handle)
}

pub(crate) fn event(state: JobState, outcome: &'static str) {
    counter!(EVENTS, "state" => state.as_str(), "outcome" => outcome).increment(1);
}

pub(crate) fn commit(took: Duration) {
    histogram!(COMMIT).record(took);
}

pub(crate) fn picked_up(pool: &str, queued_for: Duration) {
    histogram!(QUEUE, "pool" => pool.to_owned()).record(queued_for);
}

/// The planner's stages, what lies between them, and what follows them.
pub(crate) fn launch_stage(pool: &str, stage: &'static str, took: Duration) {
    histogram!(LAUNCH_STAGE, "pool" => pool.to_owned(), "stage" => stage).record(took);
}

pub(crate) fn launched(pool: &str, seconds: f64) {
    histogram!(LAUNCH, "pool" => pool.to_owned()).record(seconds);
}

pub(crate) fn launch_failed(pool: &str, cause: Cause) {
    counter!(LAUNCH_FAILURES, "pool" => pool.to_owned(), "cause" => cause.as_str()).increment(1);
}

pub(crate) fn runner_gone(pool: &str, why: EndReason) {
    counter!(RUNNERS_GONE, "pool" => pool.to_owned(), "why" => why.as_str()).increment(1);
}

/// `status`: `None` if no answer came.
pub(crate) fn github_call(credential: &str, endpoint: &'static str, status: Option<StatusCode>) {
    let status = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
    let credential = credential.to_owned();
    counter!(GITHUB_CALLS, "credential" => credential, "endpoint" => endpoint, "status" => status)
        .increment(1);
}

pub(crate) fn missed_request(credential: &str) {
    counter!(MISSED_REQUESTS, "credential" => credential.to_owned()).increment(1);
}

pub(crate) fn redelivery(credential: &str) {
    counter!(REDELIVERIES, "credential" => credential.to_owned()).increment(1);
}

pub(crate) fn redelivery_given_up(credential: &str) {
    counter!(GIVEN_UP, "credential" => credential.to_owned()).increment(1);
}

pub(crate) fn job_found(credential: &str) {
    counter!(JOBS_FOUND, "credential" => credential.to_owned()).increment(1);
}

/// What is counted anew at each scrape. Counters that may never have counted are there
/// from the start: an increase from nothing is none to Prometheus.
pub(crate) fn levels(snapshot: &Snapshot) {
    gauge!(RECOVERED).set(if snapshot.recovered { 1.0 } else { 0.0 });
    for pool in &snapshot.pools {
        let counts = [pool.provisioning, pool.starting, pool.idle, pool.busy, pool.leaving];
        for (phase, count) in PHASES.into_iter().zip(counts) {
            gauge!(RUNNERS, "pool" => pool.name.clone(), "phase" => phase).set(count as f64);
        }
        gauge!(RUNNERS_MAX, "pool" => pool.name.clone()).set(pool.max as f64);
        gauge!(RUNNERS_MIN_IDLE, "pool" => pool.name.clone()).set(pool.min_idle as f64);
        gauge!(JOBS_QUEUED, "pool" => pool.name.clone()).set(pool.queued as f64);
        for cause in Cause::ALL {
            let labels = [("pool", pool.name.clone()), ("cause", cause.as_str().to_owned())];
            counter!(LAUNCH_FAILURES, &labels).increment(0);
        }
    }
    for cause in Cause::ALL.map(Cause::as_str) {
        let held_back = snapshot.failures.iter().filter(|failure| failure.cause == cause).count();
        gauge!(BACK_OFFS, "cause" => cause).set(held_back as f64);
    }
    for budget in &snapshot.budgets {
        let labels =
            [("credential", budget.credential.clone()), ("account", budget.account.clone())];
        gauge!(RATE_LIMIT, &labels).set(budget.limit as f64);
        gauge!(RATE_LIMIT_REMAINING, &labels).set(budget.remaining as f64);
        gauge!(RATE_LIMIT_RESET, &labels).set(budget.reset_ms as f64 / 1000.0);
        if let Some(missed) = &budget.missed {
            gauge!(MISSED_REQUESTS_ALLOWED, &labels).set(missed.allowed as f64);
            let waiting = missed.waits_until_ms.is_some();
            gauge!(MISSED_WAITING, &labels).set(if waiting { 1.0 } else { 0.0 });
            for counter in [MISSED_REQUESTS, REDELIVERIES, GIVEN_UP, JOBS_FOUND] {
                counter!(counter, "credential" => budget.credential.clone()).increment(0);
            }
        }
    }
    let now = clock::now();
    for reason in Waiting::NAMES {
        let jobs = || snapshot.waiting.iter().filter(|job| job.reason == reason);
        gauge!(JOBS_WAITING, "reason" => reason).set(jobs().count() as f64);
        let oldest = jobs().map(|job| job.queued_ms).min().unwrap_or(now);
        let longest = now.saturating_sub(oldest) as f64 / 1000.0;
        gauge!(JOBS_WAITING_LONGEST, "reason" => reason).set(longest);
    }
}
