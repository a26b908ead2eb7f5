//! Notices: what of the current state someone should look at, for messages.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    control::{
        clock,
        command::{Command, CommandSender},
        sidecars::{Overview, SidecarState, Sidecars},
        snapshot::{FailureView, Snapshot},
    },
    notifications::{Kind, Notice, Notifier},
};
use edgerunner_scheduler::{
    model::{Cause, UnixMs},
    plan::Waiting,
};

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How many failures in a row are not a passing trouble.
const FAILURES_MIN: u32 = 3;
/// A pool for them may just be on its way, by a reload.
const UNMATCHED_FOR_MS: UnixMs = 5 * 60_000;
/// Another sidecar takes over within seconds.
const NOBODY_PLANS_FOR: Duration = Duration::from_secs(60);
const LOOK_FOR_PLANNER_EVERY: Duration = Duration::from_secs(15);
/// Examples in one message.
const NAMED_MAX: usize = 5;

/// Looks at the state of this sidecar's planner, for as long as it plans.
pub(crate) async fn watch(commands: CommandSender, notifier: Notifier) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (reply, response) = oneshot::channel();
        if commands.send(Command::GetSnapshot(reply)).await.is_ok()
            && let Ok(Ok(snapshot)) = response.await
        {
            for notice in of(&snapshot, clock::now().wall) {
                notifier.notify(notice);
            }
        }
    }
}

/// What someone should look at.
fn of(snapshot: &Snapshot, now: UnixMs) -> Vec<Notice> {
    let mut notices = failing(&snapshot.failures, now);
    for pool in &snapshot.pools {
        let Some(version) = pool.runner_version.as_ref().filter(|it| it.ends_soon(now)) else {
            continue;
        };
        let (name, date) = (&pool.name, version.end_date().unwrap_or_default());
        let number = version.version.as_deref().unwrap_or("of unknown number");
        let message = format!(
            "GitHub stops accepting the runners of pool {name} on {date}: version {number}. Pull \
             their image again, or set runner_image to a newer one"
        );
        notices.push(Notice { kind: Kind::VersionEnds, subject: name.clone(), message, at: now });
    }
    notices.extend(unmatched(snapshot, now));
    notices
}

/// One notice for each cause: what fails for the same reason has one remedy.
fn failing(failures: &[FailureView], now: UnixMs) -> Vec<Notice> {
    let mut causes: BTreeMap<&str, Vec<&FailureView>> = BTreeMap::new();
    // A limit of GitHub passes, and is no failure of a pool.
    let passes = |it: &&FailureView| it.cause == Cause::RateLimited.as_str();
    for failure in failures.iter().filter(|it| it.failures >= FAILURES_MIN && !passes(it)) {
        causes.entry(&failure.cause).or_default().push(failure);
    }
    let notice = |(cause, failures): (&str, Vec<&FailureView>)| {
        let named = failures.iter().take(NAMED_MAX).map(|failure| {
            let FailureView { blocks, message, failures, .. } = failure;
            format!("{blocks}: {message} ({failures} failures)")
        });
        let named = named.collect::<Vec<_>>().join("; ");
        let message = format!("launches fail: {named}{}", and_more(failures.len()));
        Notice { kind: Kind::PoolFailing, subject: cause.to_owned(), message, at: now }
    };
    causes.into_iter().map(notice).collect()
}

/// All jobs together: workflows make up labels.
fn unmatched(snapshot: &Snapshot, now: UnixMs) -> Option<Notice> {
    let sets = snapshot.unmatched.iter().filter(|set| {
        set.reason != Waiting::NOT_SELF_HOSTED
            && now.saturating_sub(set.queued_ms) >= UNMATCHED_FOR_MS
    });
    let sets: Vec<String> = sets
        .map(|set| {
            let (jobs, labels) = (set.jobs, set.labels.join(", "));
            format!("{jobs} with [{labels}], such as of {}: {}", set.repository, set.message)
        })
        .collect();
    if sets.is_empty() {
        return None;
    }
    let more = and_more(sets.len());
    let named: Vec<String> = sets.into_iter().take(NAMED_MAX).collect();
    let message = format!("jobs wait that no pool will run: {}{more}", named.join("; "));
    Some(Notice { kind: Kind::JobsUnmatched, subject: "jobs".to_owned(), message, at: now })
}

fn and_more(count: usize) -> String {
    match count.saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
}

/// Looks whether one of the sidecars that share the store plans. Runs on all of them.
pub(crate) async fn watch_for_planner(sidecars: Sidecars, own_id: String, notifier: Notifier) {
    let mut ticks = interval(LOOK_FOR_PLANNER_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing_since: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let missing = match sidecars.look().await {
            Ok(overview) if !overview.nobody_plans => None,
            Ok(overview) => Some((speaks(&overview, &own_id), {
                let (title, text) = overview.why_nothing_is_planned(clock::now().wall);
                format!("{title}. {text}")
            })),
            Err(error) => Some((true, format!("no sidecar plans: the store is away: {error}"))),
        };
        let Some((speaks, message)) = missing else {
            missing_since = None;
            continue;
        };
        let since = *missing_since.get_or_insert_with(Instant::now);
        if speaks && since.elapsed() >= NOBODY_PLANS_FOR {
            let (subject, at) = ("planner".to_owned(), clock::now().wall);
            notifier.notify(Notice { kind: Kind::NoPlanner, subject, message, at });
        }
    }
}

/// Whether this sidecar is the one that sends a message for all: the first of those that live.
fn speaks(overview: &Overview, own_id: &str) -> bool {
    let living = overview.sidecars.iter().filter(|it| !it.is(SidecarState::Silent));
    living.map(|it| it.id.as_str()).min().is_none_or(|first| first == own_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot::UnmatchedView;

    const NOW: UnixMs = 1_000_000_000;

    fn failure(blocks: &str, cause: Cause, failures: u32) -> FailureView {
        FailureView {
            jobs: 0,
            oldest_ms: None,
            blocks: blocks.into(),
            cause: cause.as_str().into(),
            message: "it failed".into(),
            failures,
            since_ms: 1,
            until_ms: 2,
        }
    }

    fn set(label: &str, reason: &str, queued_ms: UnixMs) -> UnmatchedView {
        UnmatchedView {
            labels: vec!["self-hosted".into(), label.into()],
            reason: reason.into(),
            message: "no pool has the label".into(),
            jobs: 2,
            queued_ms,
            repository: "acme/app".into(),
        }
    }

    #[test]
    fn failures_that_last_are_one_notice_for_each_cause() {
        let mut failures: Vec<FailureView> =
            (0..7).map(|pool| failure(&format!("pool {pool}"), Cause::Image, 3)).collect();
        failures.push(failure("pool once", Cause::Store, 2));
        failures.push(failure("credential github", Cause::RateLimited, 9));
        failures.push(failure("pool away", Cause::GitHubUnavailable, 4));
        let snapshot = Snapshot { failures, ..Snapshot::unknown() };
        let notices = of(&snapshot, NOW);
        let subjects: Vec<&str> = notices.iter().map(|it| it.subject.as_str()).collect();
        assert_eq!(subjects, [Cause::GitHubUnavailable.as_str(), Cause::Image.as_str()]);
        let message = &notices[1].message;
        assert!(message.contains("pool 4: it failed (3 failures); and 2 more"), "{message}");
        assert!(!message.contains("pool 5"), "{message}");
    }

    #[test]
    fn jobs_that_no_pool_will_run_are_one_notice_after_some_minutes() {
        let old = NOW - UNMATCHED_FOR_MS;
        let new = old + 1;
        let of_sets = |unmatched| of(&Snapshot { unmatched, ..Snapshot::unknown() }, NOW);
        assert_eq!(
            of_sets(vec![set("gpu", "no_pool", new), set("x", Waiting::NOT_SELF_HOSTED, old)]),
            []
        );
        let notices = of_sets(vec![set("gpu", "no_pool", old), set("arm", "no_pool", old)]);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        let expected = "jobs wait that no pool will run: 2 with [self-hosted, gpu], such as of \
                        acme/app: no pool has the label; 2 with [self-hosted, arm], such as of \
                        acme/app: no pool has the label";
        assert_eq!((notice.kind, &*notice.message), (Kind::JobsUnmatched, expected));
    }
}
