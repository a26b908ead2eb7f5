//! How many requests a target gets that only fails: fewer than 12 in any hour, of whatever kind.
//!
//! Each kind has back-offs of its own, which could add up. So all of them share an allowance:
//! look-ups get the smaller part, and launches and removals become rarer as it runs out.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::{Instant, ServerTarget};

const HOUR: Duration = Duration::from_secs(3_600);
/// Requests in any hour. A removal may go out at the same time as the last launch.
const REQUESTS_MAX: usize = 10;
/// The first ones follow their back-off alone.
const SPREAD_FROM: usize = 6;
/// After so many failures in an hour, look-ups become rare.
const LOOK_UPS_MAX: usize = 4;
/// Then this is between one failure and the next look-up.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(20 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Launch,
    Removal,
    LookUp,
}

#[derive(Debug, Default)]
pub(super) struct Allowances {
    /// Requests that failed, and when, since one last succeeded.
    failed: HashMap<ServerTarget, VecDeque<(Instant, Request)>>,
}

impl Allowances {
    /// The executor lets launches that began before another one failed fail with it, and removals
    /// likewise: that is one request.
    pub(super) fn failed(
        &mut self,
        target: &ServerTarget,
        request: Request,
        began: Instant,
        now: Instant,
    ) {
        let failed = self.failed.entry(target.clone()).or_default();
        let shared = |(at, other): &(Instant, Request)| *other == request && *at >= began;
        if request != Request::LookUp && failed.iter().any(shared) {
            return;
        }
        failed.push_back((now, request));
        if failed.len() > 2 * REQUESTS_MAX {
            failed.pop_front();
        }
    }

    pub(super) fn succeeded(&mut self, target: &ServerTarget) {
        self.failed.remove(target);
    }

    /// Whether no target fails.
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.failed.retain(|_, failed| failed.back().is_some_and(|(last, _)| *last + HOUR > now));
    }

    /// When the next launch or removal may be tried at the earliest: what is left of the
    /// allowance is spread over the rest of the hour.
    pub(super) fn next(&self, target: &ServerTarget, now: Instant) -> Instant {
        let last_hour: Vec<Instant> = self.last_hour(target, now).collect();
        let spent = last_hour.len();
        if spent < SPREAD_FROM {
            return now;
        }
        let left = REQUESTS_MAX.saturating_sub(spent) as u32;
        // When fewer than `REQUESTS_MAX` are left of the last hour.
        let free = last_hour[spent.saturating_sub(REQUESTS_MAX)] + HOUR;
        now + free.duration_since(now) / (left + 1)
    }

    pub(super) fn allows_look_up(&self, target: &ServerTarget, now: Instant) -> bool {
        self.next_look_up(target, now).is_none()
    }

    /// When something may be looked up at the target, if not now.
    pub(super) fn next_look_up(&self, target: &ServerTarget, now: Instant) -> Option<Instant> {
        let failed = self.failed.get(target)?;
        let (oldest, _) = failed[failed.len().checked_sub(LOOK_UPS_MAX)?];
        let mut next = oldest + HOUR;
        // After an outage nothing else may be left to ask GitHub about there.
        if let Some((last, _)) = failed.back()
            && self.last_hour(target, now).count() < REQUESTS_MAX
        {
            next = next.min(*last + LOOK_UP_AGAIN);
        }
        Some(next).filter(|next| *next > now)
    }

    fn last_hour(&self, target: &ServerTarget, now: Instant) -> impl Iterator<Item = Instant> {
        let failed = self.failed.get(target).into_iter().flatten().map(|(at, _)| *at);
        failed.filter(move |at| *at + HOUR > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ServerTarget {
        "org:acme".parse().unwrap()
    }

    fn seconds(seconds: i64) -> Instant {
        Instant::from_millis(1_000 * seconds)
    }

    #[test]
    fn an_hour_has_a_limited_number_of_tries_evenly_spread() {
        let mut allowances = Allowances::default();
        let (mut now, mut tries) = (seconds(0), Vec::new());
        while now < seconds(5 * 3_600) {
            tries.push(now);
            allowances.failed(&target(), Request::Launch, now, now);
            now = allowances.next(&target(), now).max(now + Duration::from_secs(5));
        }
        for first in &tries {
            let in_hour = tries.iter().filter(|at| *at >= first && **at < *first + HOUR);
            assert!(in_hour.count() <= REQUESTS_MAX, "{tries:?}");
        }
        let gaps = tries.windows(2).map(|pair| pair[1].duration_since(pair[0]));
        assert!(gaps.max() < Some(Duration::from_secs(900)), "{tries:?}");
    }

    #[test]
    fn launches_that_fail_together_are_one_request_and_a_removal_is_another() {
        let mut allowances = Allowances::default();
        for request in [Request::Launch, Request::Launch, Request::Removal, Request::Removal] {
            allowances.failed(&target(), request, seconds(0), seconds(1));
        }
        assert_eq!(allowances.last_hour(&target(), seconds(1)).count(), 2);
    }

    #[test]
    fn a_success_restores_it_and_failures_are_forgotten_after_an_hour() {
        let mut allowances = Allowances::default();
        for _ in 0..LOOK_UPS_MAX {
            allowances.failed(&target(), Request::LookUp, seconds(0), seconds(0));
        }
        assert!(!allowances.allows_look_up(&target(), seconds(1_199)));
        assert!(allowances.allows_look_up(&target(), seconds(1_200)));
        for _ in LOOK_UPS_MAX..REQUESTS_MAX {
            allowances.failed(&target(), Request::LookUp, seconds(0), seconds(0));
        }
        assert!(!allowances.allows_look_up(&target(), seconds(3_599)));
        assert!(allowances.allows_look_up(&target(), seconds(3_600)));
        allowances.succeeded(&target());
        assert!(allowances.allows_look_up(&target(), seconds(1)));
    }
}
