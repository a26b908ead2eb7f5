//! The current state as Prometheus gauges, set at each scrape.

use metrics::{Unit, describe_gauge, gauge};

use crate::{
    control::{
        clock,
        figures::{Figures, PHASES},
    },
    telemetry::metrics::{launch_failures_from_zero, missed_from_zero},
};
use edgerunner_scheduler::{model::Cause, plan::Waiting};

const BACK_OFFS: &str = "edgerunner_back_offs";
const RATE_LIMIT: &str = "edgerunner_github_rate_limit";
const RATE_LIMIT_REMAINING: &str = "edgerunner_github_rate_limit_remaining";
const RATE_LIMIT_RESET: &str = "edgerunner_github_rate_limit_reset_timestamp_seconds";
const MISSED_REQUESTS_ALLOWED: &str = "edgerunner_missed_requests_allowed";
const MISSED_WAITING: &str = "edgerunner_missed_waiting";
const RUNNERS: &str = "edgerunner_runners";
const RUNNERS_MAX: &str = "edgerunner_runners_max";
const RUNNERS_MIN_IDLE: &str = "edgerunner_runners_min_idle";
const JOBS_QUEUED: &str = "edgerunner_jobs_queued";
const JOBS_WAITING: &str = "edgerunner_jobs_waiting";
const JOBS_WAITING_LONGEST: &str = "edgerunner_jobs_waiting_longest_seconds";
const RECOVERED: &str = "edgerunner_recovered";

/// Must be called once, after the recorder is installed.
pub(crate) fn describe() {
    describe_gauge!(BACK_OFFS, "Launches on hold after failures, by cause");
    describe_gauge!(RATE_LIMIT, "GitHub's request limit per hour");
    describe_gauge!(RATE_LIMIT_REMAINING, "Requests to GitHub that remain in this hour");
    describe_gauge!(RATE_LIMIT_RESET, Unit::Seconds, "When the request limit is reset");
    describe_gauge!(
        MISSED_REQUESTS_ALLOWED,
        "Requests per hour that may be spent on missed webhooks"
    );
    describe_gauge!(MISSED_WAITING, "1 while those requests are used up and more are due");
    describe_gauge!(RUNNERS, "Current runners, by phase");
    describe_gauge!(RUNNERS_MAX, "Maximum number of runners of the pool");
    describe_gauge!(RUNNERS_MIN_IDLE, "Runners kept idle at each target, schedules included");
    describe_gauge!(JOBS_QUEUED, "Jobs that wait for a runner of the pool");
    describe_gauge!(JOBS_WAITING, "Queued jobs, by waiting reason");
    describe_gauge!(
        JOBS_WAITING_LONGEST,
        Unit::Seconds,
        "How long the oldest queued job has waited, by waiting reason"
    );
    describe_gauge!(RECOVERED, "1 once Docker has answered and launches may begin");
}

/// Counters that were never incremented are exported as 0 too: Prometheus sees no increase from
/// a series that is missing.
pub(crate) fn set(figures: &Figures) {
    gauge!(RECOVERED).set(if figures.recovered { 1.0 } else { 0.0 });
    for pool in &figures.pools {
        for (phase, count) in PHASES.into_iter().zip(pool.runners) {
            gauge!(RUNNERS, "pool" => pool.name.clone(), "phase" => phase).set(count as f64);
        }
        gauge!(RUNNERS_MAX, "pool" => pool.name.clone()).set(pool.max as f64);
        gauge!(RUNNERS_MIN_IDLE, "pool" => pool.name.clone()).set(pool.min_idle as f64);
        gauge!(JOBS_QUEUED, "pool" => pool.name.clone()).set(pool.queued as f64);
        launch_failures_from_zero(&pool.name);
    }
    for cause in Cause::ALL.map(Cause::as_str) {
        let on_hold = figures.back_offs.get(cause).copied().unwrap_or_default();
        gauge!(BACK_OFFS, "cause" => cause).set(on_hold as f64);
    }
    for budget in &figures.budgets {
        let labels =
            [("credential", budget.credential.clone()), ("account", budget.account.clone())];
        gauge!(RATE_LIMIT, &labels).set(budget.limit as f64);
        gauge!(RATE_LIMIT_REMAINING, &labels).set(budget.remaining as f64);
        gauge!(RATE_LIMIT_RESET, &labels).set(budget.reset_ms as f64 / 1000.0);
        if let Some(missed) = &budget.missed {
            gauge!(MISSED_REQUESTS_ALLOWED, &labels).set(missed.allowed as f64);
            let waiting = missed.waits_until_ms.is_some();
            gauge!(MISSED_WAITING, &labels).set(if waiting { 1.0 } else { 0.0 });
            missed_from_zero(&budget.credential);
        }
    }
    let now = clock::now().wall;
    // Jobs that other runners are expected to run do not wait.
    for reason in Waiting::NAMES.into_iter().filter(|it| *it != Waiting::NOT_SELF_HOSTED) {
        let waiting = figures.waiting.get(reason);
        gauge!(JOBS_WAITING, "reason" => reason).set(waiting.map_or(0, |it| it.jobs) as f64);
        let oldest = waiting.map_or(now, |it| it.oldest);
        let longest = now.saturating_sub(oldest) as f64 / 1000.0;
        gauge!(JOBS_WAITING_LONGEST, "reason" => reason).set(longest);
    }
}
