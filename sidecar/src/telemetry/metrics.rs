//! Prometheus counters and histograms. Their labels are pools, phases, credentials with
//! their accounts, and names from closed lists, so that no workflow can add series.

use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Unit, counter, describe_counter, describe_histogram, histogram, with_recorder,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::time::interval;

use edgerunner_scheduler::{
    model::{Cause, JobState},
    plan::EndReason,
};

const EVENTS: &str = "edgerunner_events_total";
const COMMIT: &str = "edgerunner_store_commit_seconds";
const QUEUE: &str = "edgerunner_job_queue_seconds";
const RUN: &str = "edgerunner_job_run_seconds";
const COMPLETED: &str = "edgerunner_jobs_completed_total";
const LAUNCH: &str = "edgerunner_launch_seconds";
const LAUNCH_STAGE: &str = "edgerunner_launch_stage_seconds";
const WAKES: &str = "edgerunner_wakes_total";
const LAUNCH_FAILURES: &str = "edgerunner_launch_failures_total";
const RUNNERS_GONE: &str = "edgerunner_runners_gone_total";
const IMAGE_REFRESHES: &str = "edgerunner_image_refreshes_total";
const SPACE_MADE: &str = "edgerunner_space_made_total";
const EGRESS_DENIED: &str = "edgerunner_egress_denied_total";
const SWARM_POLL: &str = "edgerunner_swarm_poll_seconds";
const SWARM_SECOND_STARTS: &str = "edgerunner_swarm_second_starts_total";
const REGISTRATIONS_LEFT: &str = "edgerunner_registrations_left_total";
const GITHUB_CALLS: &str = "edgerunner_github_calls_total";
const BUDGET_SPENT: &str = "edgerunner_github_budget_spent_total";
const MISSED_REQUESTS: &str = "edgerunner_missed_requests_total";
const REDELIVERIES: &str = "edgerunner_missed_redeliveries_total";
const GIVEN_UP: &str = "edgerunner_missed_given_up_total";
const JOBS_FOUND: &str = "edgerunner_missed_jobs_found_total";
const LOST_RUNS: &str = "edgerunner_lost_runs_total";
const API_REFUSED: &str = "edgerunner_api_refused_total";
const NOTIFICATIONS: &str = "edgerunner_notifications_total";
const TERMS_BEGUN: &str = "edgerunner_terms_begun_total";
const TERMS_LOST: &str = "edgerunner_terms_lost_total";

const CONCLUSIONS: [&str; 9] = [
    "success",
    "failure",
    "cancelled",
    "timed_out",
    "skipped",
    "neutral",
    "action_required",
    "stale",
    "startup_failure",
];

/// Gauges are set at each scrape. One that is no longer set, such as that of a node that was
/// removed, is exported for this long.
const GAUGE_KEPT: Duration = Duration::from_secs(60);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Seconds: from an idle runner to an hour in the queue.
const QUEUE_BUCKETS: [f64; 13] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Seconds: from a check of a few lines to the six hours after which GitHub's own runners end a job.
const RUN_BUCKETS: [f64; 12] =
    [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 21600.0];
/// Seconds: from an image that is present to one that must be pulled.
const LAUNCH_BUCKETS: [f64; 11] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds: from a small Swarm to one whose managers are overloaded.
const POLL_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Installs the recorder of this process; fails if there is one already. [`keep_up`] must run
/// as long as it is used.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_KEPT))
        .set_buckets_for_metric(
            Matcher::Full(COMMIT.into()),
            &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0],
        )?
        .set_buckets_for_metric(Matcher::Full(QUEUE.into()), &QUEUE_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(RUN.into()), &RUN_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(LAUNCH.into()), &LAUNCH_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(LAUNCH_STAGE.into()), &LAUNCH_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(SWARM_POLL.into()), &POLL_BUCKETS)?
        .install_recorder()?;
    with_recorder(|_| {
        describe_counter!(EVENTS, "Events submitted by the filter, by job state and outcome");
        describe_histogram!(
            COMMIT,
            Unit::Seconds,
            "Duration of a commit, which may contain many events"
        );
        describe_histogram!(
            QUEUE,
            Unit::Seconds,
            "From the `queued` event of a job to its `in_progress` event, by pool"
        );
        describe_histogram!(
            RUN,
            Unit::Seconds,
            "From the `in_progress` event of a job to its `completed` event, by pool and conclusion"
        );
        describe_counter!(COMPLETED, "Jobs that were completed, by pool and conclusion");
        describe_histogram!(
            LAUNCH,
            Unit::Seconds,
            "From the decision to launch to a started container, or to a parked runner that is woken"
        );
        describe_histogram!(
            LAUNCH_STAGE,
            Unit::Seconds,
            "Duration of a launch stage: image, turn, credentials, container or online"
        );
        describe_counter!(WAKES, "Parked runners that were to be woken, by outcome");
        describe_counter!(LAUNCH_FAILURES, "Launches that failed, by cause");
        describe_counter!(RUNNERS_GONE, "Runners removed, by reason");
        describe_counter!(
            SPACE_MADE,
            "Images and tool caches removed because the disk was nearly full"
        );
        describe_counter!(
            REGISTRATIONS_LEFT,
            "Runners that ended while GitHub refused to remove their registration"
        );
        describe_counter!(
            IMAGE_REFRESHES,
            "Times that a registry was asked for a newer image of a tag, by outcome"
        );
        describe_counter!(
            EGRESS_DENIED,
            "Connections of jobs that the pool's egress does not permit, by reason and mode"
        );
        describe_histogram!(
            SWARM_POLL,
            Unit::Seconds,
            "Duration of a poll of the tasks and nodes of the Docker Swarm"
        );
        describe_counter!(SWARM_SECOND_STARTS, "Launchers that Docker Swarm started a second time");
        describe_counter!(GITHUB_CALLS, "Requests to GitHub, by endpoint and status");
        describe_counter!(
            BUDGET_SPENT,
            "Requests to GitHub without those answered 304, which are free, by purpose and outcome"
        );
        describe_counter!(MISSED_REQUESTS, "Requests spent on finding missed webhooks");
        describe_counter!(REDELIVERIES, "Redeliveries requested from GitHub");
        describe_counter!(GIVEN_UP, "Failed webhooks that will not be requested again");
        describe_counter!(JOBS_FOUND, "Queued jobs found without a webhook");
        describe_counter!(
            LOST_RUNS,
            "Runs whose lost jobs GitHub was asked to run again, by answer"
        );
        describe_counter!(NOTIFICATIONS, "Messages to the receiver of notifications, by outcome");
        describe_counter!(
            API_REFUSED,
            "Requests to the page or the API that were refused, by reason"
        );
        describe_counter!(TERMS_BEGUN, "Terms in which this sidecar began to plan");
        describe_counter!(TERMS_LOST, "Terms that ended although this sidecar went on");
    });
    Ok(handle)
}

/// Runs until the process ends. Samples of histograms pile up until they are counted, also if
/// nobody scrapes them.
pub(crate) async fn keep_up(handle: PrometheusHandle) {
    let mut ticks = interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// `outcome`: `advanced`, `stale` or `duplicate`.
pub(crate) fn event(state: JobState, outcome: &'static str) {
    counter!(EVENTS, "state" => state.as_str(), "outcome" => outcome).increment(1);
}

pub(crate) fn commit(took: Duration) {
    histogram!(COMMIT).record(took);
}

/// `outcome`: `updated`, `unchanged` or `failed`.
pub(crate) fn image_refreshed(pool: &str, outcome: &'static str) {
    counter!(IMAGE_REFRESHES, "pool" => pool.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn picked_up(pool: &str, queued_for: Duration) {
    histogram!(QUEUE, "pool" => pool.to_owned()).record(queued_for);
}

/// `ran_ms`: `None` if its start or its end is not known.
pub(crate) fn job_completed(pool: &str, conclusion: &str, ran_ms: Option<u64>) {
    let labels = [("pool", pool.to_owned()), ("conclusion", known(conclusion).to_owned())];
    counter!(COMPLETED, &labels).increment(1);
    if let Some(ran_ms) = ran_ms {
        histogram!(RUN, &labels).record(Duration::from_millis(ran_ms));
    }
}

/// A conclusion of GitHub's closed list, to which it may add.
fn known(conclusion: &str) -> &'static str {
    let found = CONCLUSIONS.iter().find(|known| **known == conclusion);
    found.copied().unwrap_or("unknown")
}

/// `stage`: `image`, `turn`, `credentials`, `container` or `online`.
pub(crate) fn launch_stage(pool: &str, stage: &'static str, took: Duration) {
    histogram!(LAUNCH_STAGE, "pool" => pool.to_owned(), "stage" => stage).record(took);
}

pub(crate) fn launched(pool: &str, seconds: f64) {
    histogram!(LAUNCH, "pool" => pool.to_owned()).record(seconds);
}

/// `outcome`: `woken` or `failed`.
pub(crate) fn wake(pool: &str, outcome: &'static str) {
    counter!(WAKES, "pool" => pool.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn launch_failed(pool: &str, cause: Cause) {
    counter!(LAUNCH_FAILURES, "pool" => pool.to_owned(), "cause" => cause.as_str()).increment(1);
}

pub(crate) fn runner_gone(pool: &str, why: EndReason) {
    counter!(RUNNERS_GONE, "pool" => pool.to_owned(), "why" => why.as_str()).increment(1);
}

/// `kind`: `image` or `tool_cache`.
pub(crate) fn space_made(kind: &'static str, count: usize) {
    counter!(SPACE_MADE, "kind" => kind).increment(count as u64);
}

/// `reason`: from the provider's closed list. `observed`: it was permitted nevertheless.
pub(crate) fn egress_denied(pool: &str, reason: &'static str, observed: bool) {
    egress_counter(pool, reason, observed).increment(1);
}

/// Exports it as 0 until there is one.
pub(crate) fn egress_denied_from_zero(pool: &str, reason: &'static str, observed: bool) {
    egress_counter(pool, reason, observed).increment(0);
}

fn egress_counter(pool: &str, reason: &'static str, observed: bool) -> Counter {
    let mode = if observed { "observe" } else { "enforce" };
    counter!(EGRESS_DENIED, "pool" => pool.to_owned(), "reason" => reason, "mode" => mode)
}

pub(crate) fn swarm_poll(took: Duration) {
    histogram!(SWARM_POLL).record(took);
}

/// Docker Swarm started a launcher although it had ended.
pub(crate) fn swarm_second_start(pool: &str) {
    counter!(SWARM_SECOND_STARTS, "pool" => pool.to_owned()).increment(1);
}

pub(crate) fn registration_left(pool: &str) {
    counter!(REGISTRATIONS_LEFT, "pool" => pool.to_owned()).increment(1);
}

/// `status`: `None` without a response.
pub(crate) fn github_call(credential: &str, endpoint: &'static str, status: Option<StatusCode>) {
    let status = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
    let credential = credential.to_owned();
    counter!(GITHUB_CALLS, "credential" => credential, "endpoint" => endpoint, "status" => status)
        .increment(1);
}

/// `purpose` and `outcome`: names from the closed lists of the GitHub client. With 0 requests
/// the counter is exported.
pub(crate) fn github_budget_spent(
    credential: &str,
    purpose: &'static str,
    outcome: &'static str,
    requests: u64,
) {
    let credential = credential.to_owned();
    counter!(BUDGET_SPENT, "credential" => credential, "purpose" => purpose, "outcome" => outcome)
        .increment(requests);
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

/// `outcome`: `accepted` or `refused`.
pub(crate) fn lost_run(pool: &str, outcome: &'static str) {
    counter!(LOST_RUNS, "pool" => pool.to_owned(), "outcome" => outcome).increment(1);
}

/// `kind`: from the closed list of notifications. `outcome`: `sent`, `failed` or `dropped`.
pub(crate) fn notification(kind: &'static str, outcome: &'static str) {
    counter!(NOTIFICATIONS, "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn notifications_from_zero(kind: &'static str) {
    for outcome in ["sent", "failed", "dropped"] {
        counter!(NOTIFICATIONS, "kind" => kind, "outcome" => outcome).increment(0);
    }
}

/// `reason`: `host`, `origin`, `user`, `token` or `role`.
pub(crate) fn api_refused(reason: &'static str) {
    counter!(API_REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn api_refused_from_zero() {
    for reason in ["host", "origin", "user", "token", "role"] {
        counter!(API_REFUSED, "reason" => reason).increment(0);
    }
}

/// This sidecar begins to plan.
pub(crate) fn term_begun() {
    counter!(TERMS_BEGUN).increment(1);
}

/// It plans no more, although it was not stopped.
pub(crate) fn term_lost() {
    counter!(TERMS_LOST).increment(1);
}

pub(crate) fn terms_from_zero() {
    counter!(TERMS_BEGUN).increment(0);
    counter!(TERMS_LOST).increment(0);
}

/// Exports the failures of a pool as 0 until there is one.
pub(crate) fn launch_failures_from_zero(pool: &str) {
    counter!(REGISTRATIONS_LEFT, "pool" => pool.to_owned()).increment(0);
    for outcome in ["woken", "failed"] {
        counter!(WAKES, "pool" => pool.to_owned(), "outcome" => outcome).increment(0);
    }
    for cause in Cause::ALL {
        let labels = [("pool", pool.to_owned()), ("cause", cause.as_str().to_owned())];
        counter!(LAUNCH_FAILURES, &labels).increment(0);
    }
}

/// The same for the counters of a credential that looks for missed webhooks.
pub(crate) fn missed_from_zero(credential: &str) {
    for counter in [MISSED_REQUESTS, REDELIVERIES, GIVEN_UP, JOBS_FOUND] {
        counter!(counter, "credential" => credential.to_owned()).increment(0);
    }
}
