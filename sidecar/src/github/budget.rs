//! Request budgets: how many requests each credential has left in this hour.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode};

use super::{answer::Answer, rate_limit::number};

/// Accounts whose budgets are shown; far more than one host serves.
const BUDGETS_MAX: usize = 1_000;
/// GitHub computes the same reset from several clocks.
const SAME_RESET_SECONDS: u64 = 5;

/// The requests that one token may send in an hour, as GitHub last reported them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub limit: u64,
    pub remaining: u64,
    /// When `remaining` is `limit` again, in seconds since the Unix epoch.
    pub reset: u64,
}

impl Budget {
    /// `None` without a limit (an Enterprise Server), or if the call counted against another
    /// budget than most calls do.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let resource = headers.get("x-ratelimit-resource");
        if resource.is_some_and(|resource| resource != "core") {
            return None;
        }
        Some(Self {
            limit: number(headers, "x-ratelimit-limit")?,
            remaining: number(headers, "x-ratelimit-remaining")?,
            reset: number(headers, "x-ratelimit-reset")?,
        })
    }

    /// Answers overtake each other: of the same hour, the one with the least left is the latest.
    fn or_later(self, other: Self) -> Self {
        if self.reset.abs_diff(other.reset) <= SAME_RESET_SECONDS {
            Self { remaining: self.remaining.min(other.remaining), ..other }
        } else if other.reset > self.reset {
            other
        } else {
            self
        }
    }
}

/// The budgets of a credential, by account. A token has one, under an empty name. An App has
/// its own there, and one for each account where it is installed.
#[derive(Default)]
pub(super) struct Budgets(Mutex<BTreeMap<String, Budget>>);

impl Budgets {
    pub(super) fn record(&self, account: &str, answer: &Answer) {
        // A refused token counts against our IP address.
        if answer.status != StatusCode::UNAUTHORIZED {
            self.update(account, &answer.headers);
        }
    }

    fn update(&self, account: &str, headers: &HeaderMap) {
        let Some(new) = Budget::read(headers) else { return };
        let mut budgets = self.locked();
        if let Some(known) = budgets.get_mut(account) {
            *known = known.or_later(new);
        } else if budgets.len() < BUDGETS_MAX {
            budgets.insert(account.to_owned(), new);
        }
    }

    pub(super) fn all(&self) -> Vec<(String, Budget)> {
        self.locked().iter().map(|(account, budget)| (account.clone(), *budget)).collect()
    }

    pub(super) fn of(&self, account: &str) -> Option<Budget> {
        self.locked().get(account).copied()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Budget>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint of a path, for metrics: one of a closed list.
pub(super) fn endpoint(path: &str) -> &'static str {
    const ENDPOINTS: [&str; 10] = [
        "access_tokens",
        "attempts",
        "deliveries",
        "generate-jitconfig",
        "installation",
        "jobs",
        "registration-token",
        "runner-groups",
        "runners",
        "runs",
    ];
    let path = path.split('?').next().unwrap_or_default();
    let is_id = |segment: &&str| segment.bytes().all(|byte| byte.is_ascii_digit());
    let last = path.rsplit('/').find(|segment| !is_id(segment)).unwrap_or_default();
    ENDPOINTS.into_iter().find(|endpoint| *endpoint == last).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(remaining: u64, reset: u64, resource: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-limit", 5_000.into());
        headers.insert("x-ratelimit-remaining", remaining.into());
        headers.insert("x-ratelimit-reset", reset.into());
        headers.insert("x-ratelimit-resource", resource.parse().unwrap());
        headers
    }

    #[test]
    fn the_least_that_remains_of_the_latest_hour_counts() {
        let budgets = Budgets::default();
        budgets.update("", &HeaderMap::new());
        assert_eq!(budgets.all(), []);
        for (remaining, reset, resource, expected) in [
            (4_000, 1_000, "core", (4_000, 1_000)),
            (3_900, 1_001, "core", (3_900, 1_001)),
            // An answer that was overtaken.
            (3_950, 1_001, "core", (3_900, 1_001)),
            (10, 1_001, "actions_runner_registration", (3_900, 1_001)),
            (4_999, 4_601, "core", (4_999, 4_601)),
            (1, 1_001, "core", (4_999, 4_601)),
        ] {
            budgets.update("", &headers(remaining, reset, resource));
            let budget = budgets.of("").unwrap();
            assert_eq!((budget.remaining, budget.reset), expected);
        }
        budgets.update("acme", &headers(7, 1_000, "core"));
        assert_eq!(budgets.of("").unwrap().remaining, 4_999);
        assert_eq!(budgets.all().len(), 2);
    }

    #[test]
    fn names_in_paths_are_no_endpoints() {
        for (path, expected) in [
            ("/repos/runs/jobs/actions/runners/generate-jitconfig", "generate-jitconfig"),
            ("/orgs/acme/actions/runners?per_page=100", "runners"),
            ("/orgs/acme/actions/runners/7", "runners"),
            ("/repos/acme/app/actions/runs/5/jobs?filter=latest", "jobs"),
            ("/repos/acme/app/hooks/1/deliveries/2/attempts", "attempts"),
            ("/app/hook/deliveries?cursor=v1_2", "deliveries"),
            ("/repos/acme/secret", "other"),
            ("", "other"),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
        }
    }
}
