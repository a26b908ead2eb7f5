//! How many launches GitHub allows in a minute, and how much each credential has left.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::{Host, Instant, ServerTarget, Target};

const MINUTE: Duration = Duration::from_secs(60);
/// Launches with one credential in a minute. Each is a POST, which costs 5 of the 900 points a
/// minute: <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.
pub const WITH_CREDENTIAL_MAX: usize = 180;
/// Launches at one repository, organization or enterprise in a minute. GitHub registers 1,500
/// runners in 5 minutes: <https://docs.github.com/en/actions/reference/limits>.
pub const AT_TARGET_MAX: usize = 300;
/// A whole quota, in [`LaunchRates::left`].
const WHOLE: u64 = 1_000_000;

/// Whether a server has these limits. An Enterprise Server has none, unless its administrator
/// sets some.
pub fn has_launch_limits(host: Host) -> bool {
    let host = host.as_str();
    host == "github.com" || host.ends_with(".ghe.com")
}

/// How many requests GitHub accepts with a credential until the end of the hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Index of the credential.
    pub credential: usize,
    /// Owner or enterprise in lower case that this quota is for; empty: all of them.
    pub account: String,
    /// Requests an hour; not 0.
    pub limit: u64,
    pub remaining: u64,
}

#[derive(Debug, Default)]
pub(super) struct LaunchRates {
    /// For each credential, when it was used in the last minute.
    with: HashMap<usize, VecDeque<Instant>>,
    /// The same for each target on a server with limits.
    at: HashMap<ServerTarget, VecDeque<Instant>>,
    quotas: Vec<Quota>,
    /// For each credential, launches since `quotas` were reported.
    since_report: HashMap<usize, u64>,
}

impl LaunchRates {
    pub(super) fn launched(&mut self, credential: usize, target: &ServerTarget, now: Instant) {
        let with = self.with.entry(credential).or_default();
        forget(with, now);
        with.push_back(now);
        *self.since_report.entry(credential).or_default() += 1;
        if has_launch_limits(target.host) {
            let at = self.at.entry(target.clone()).or_default();
            forget(at, now);
            at.push_back(now);
        }
    }

    pub(super) fn report(&mut self, quotas: Vec<Quota>) {
        self.quotas = quotas;
        self.since_report.clear();
    }

    /// How many may be launched with the credential, of this server, now.
    pub(super) fn room_with(&self, credential: usize, host: Host, now: Instant) -> usize {
        match has_launch_limits(host) {
            true => WITH_CREDENTIAL_MAX.saturating_sub(self.used_with(credential, now)),
            false => usize::MAX,
        }
    }

    /// How many may be launched at the target now.
    pub(super) fn room_at(&self, target: &ServerTarget, now: Instant) -> usize {
        if !has_launch_limits(target.host) {
            return usize::MAX;
        }
        AT_TARGET_MAX.saturating_sub(self.at.get(target).map_or(0, |at| recent(at, now)))
    }

    /// When the next launch with the credential may follow, after [`WITH_CREDENTIAL_MAX`].
    pub(super) fn next_with(&self, credential: usize, now: Instant) -> Option<Instant> {
        next(self.with.get(&credential)?, WITH_CREDENTIAL_MAX, now)
    }

    /// When the next launch at the target may follow, after [`AT_TARGET_MAX`].
    pub(super) fn next_at(&self, target: &ServerTarget, now: Instant) -> Option<Instant> {
        next(self.at.get(target)?, AT_TARGET_MAX, now)
    }

    /// How much the credential has left at the target; the greatest has the most. First in
    /// millionths: of what GitHub allows in a minute or in this hour, whichever is less. Then by
    /// its launches in the last minute. `more`: launches that are about to be made.
    pub(super) fn left(
        &self,
        credential: usize,
        target: &ServerTarget,
        more: usize,
        now: Instant,
    ) -> (u64, Reverse<usize>) {
        let used = self.used_with(credential, now) + more;
        let in_minute = WITH_CREDENTIAL_MAX.saturating_sub(used) as u64;
        let in_minute = in_minute * WHOLE / WITH_CREDENTIAL_MAX as u64;
        let account = account(&target.target);
        let is_own = |quota: &&Quota| {
            quota.credential == credential && (quota.account.is_empty() || quota.account == account)
        };
        let Some(quota) = self.quotas.iter().find(is_own) else {
            return (in_minute, Reverse(used));
        };
        let since_report = self.since_report.get(&credential).copied().unwrap_or_default();
        let remaining = quota.remaining.saturating_sub(since_report + more as u64);
        let in_hour = remaining.saturating_mul(WHOLE) / quota.limit.max(1);
        (in_minute.min(in_hour), Reverse(used))
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        for used in self.with.values_mut().chain(self.at.values_mut()) {
            forget(used, now);
        }
        self.with.retain(|_, used| !used.is_empty());
        self.at.retain(|_, used| !used.is_empty());
    }

    fn used_with(&self, credential: usize, now: Instant) -> usize {
        self.with.get(&credential).map_or(0, |used| recent(used, now))
    }
}

/// The account whose quota a request about the target counts against.
fn account(target: &Target) -> &str {
    match target {
        Target::Repository { owner, .. } => owner,
        Target::Organization(login) => login,
        Target::Enterprise(slug) => slug,
    }
}

/// How many are within the last minute.
fn recent(used: &VecDeque<Instant>, now: Instant) -> usize {
    used.len() - used.partition_point(|at| *at + MINUTE <= now)
}

fn forget(used: &mut VecDeque<Instant>, now: Instant) {
    while used.front().is_some_and(|at| *at + MINUTE <= now) {
        used.pop_front();
    }
}

/// `None`: now.
fn next(used: &VecDeque<Instant>, max: usize, now: Instant) -> Option<Instant> {
    let last = used.len().checked_sub(max)?;
    Some(used[last] + MINUTE).filter(|next| *next > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str) -> ServerTarget {
        "org:acme".parse::<Target>().unwrap().on(Host::new(host))
    }

    fn seconds(seconds: i64) -> Instant {
        Instant::from_millis(1_000 * seconds)
    }

    #[test]
    fn a_minute_has_a_limited_number_of_launches_with_a_credential_and_at_a_target() {
        let (mut rates, target) = (LaunchRates::default(), target("github.com"));
        let host = target.host;
        for number in 0..WITH_CREDENTIAL_MAX as i64 {
            assert!(rates.room_with(0, host, seconds(number / 6)) > 0);
            assert_eq!(rates.next_with(0, seconds(number / 6)), None);
            rates.launched(0, &target, seconds(number / 6));
        }
        assert_eq!(rates.room_with(0, host, seconds(59)), 0);
        assert_eq!(rates.next_with(0, seconds(59)), Some(seconds(60)));
        assert_eq!(rates.room_with(0, host, seconds(60)), 6);
        assert_eq!(rates.room_at(&target, seconds(59)), AT_TARGET_MAX - WITH_CREDENTIAL_MAX);
        for _ in WITH_CREDENTIAL_MAX..AT_TARGET_MAX {
            rates.launched(1, &target, seconds(30));
        }
        assert_eq!(
            (rates.room_with(1, host, seconds(30)), rates.room_at(&target, seconds(30))),
            (60, 0)
        );
        assert_eq!(rates.next_at(&target, seconds(30)), Some(seconds(60)));
        rates.forget_old(seconds(100));
        assert!(rates.with.is_empty() && rates.at.is_empty());
    }

    #[test]
    fn an_enterprise_server_has_no_such_limits() {
        let (mut rates, target) = (LaunchRates::default(), target("ghe.example.com"));
        for _ in 0..2 * AT_TARGET_MAX {
            rates.launched(0, &target, seconds(0));
        }
        assert_eq!(rates.room_with(0, target.host, seconds(0)), usize::MAX);
        assert_eq!(rates.room_at(&target, seconds(0)), usize::MAX);
        assert!(has_launch_limits(Host::new("acme.ghe.com")));
    }

    #[test]
    fn what_is_left_is_the_smaller_share_of_the_minute_and_of_the_hour() {
        let (mut rates, target) = (LaunchRates::default(), target("github.com"));
        let left = |rates: &LaunchRates| rates.left(0, &target, 0, seconds(0)).0;
        assert_eq!(left(&rates), WHOLE);
        rates.launched(0, &target, seconds(0));
        assert_eq!(left(&rates), WHOLE * 179 / 180);
        let quota = |account: &str, remaining| Quota {
            credential: 0,
            account: account.into(),
            limit: 5_000,
            remaining,
        };
        rates.report(vec![quota("other", 10), quota("acme", 2_500)]);
        assert_eq!(left(&rates), WHOLE / 2);
        // Launches since then count as well.
        rates.launched(0, &target, seconds(0));
        assert_eq!(left(&rates), WHOLE * 2_499 / 5_000);
        rates.report(vec![quota("", 0)]);
        assert_eq!(left(&rates), 0);
        assert_eq!(rates.left(1, &target, 0, seconds(0)), (WHOLE, Reverse(0)));
    }
}
