//! Request budgets: how many requests each credential has left in this hour.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode};

use super::{rate_limit::number, response::Response};
use edgerunner_scheduler::missed::RateLimit;

/// Accounts whose budgets are shown; far more than one host serves.
const BUDGETS_MAX: usize = 1_000;
/// GitHub computes the same reset from several clocks.
const SAME_RESET_SECONDS: u64 = 5;

/// `None` without a limit (an Enterprise Server), or if the call counted against another budget
/// than most calls do.
fn read(headers: &HeaderMap) -> Option<RateLimit> {
    let resource = headers.get("x-ratelimit-resource");
    if resource.is_some_and(|resource| resource != "core") {
        return None;
    }
    Some(RateLimit {
        limit: number(headers, "x-ratelimit-limit")?,
        remaining: number(headers, "x-ratelimit-remaining")?,
        reset: number(headers, "x-ratelimit-reset")?,
    })
}

/// Responses overtake each other: in the same hour, the one with the fewest left is the latest.
fn latest(known: RateLimit, new: RateLimit) -> RateLimit {
    if known.reset.abs_diff(new.reset) <= SAME_RESET_SECONDS {
        RateLimit { remaining: known.remaining.min(new.remaining), ..new }
    } else if new.reset > known.reset {
        new
    } else {
        known
    }
}

/// The budgets of a credential, by account. A token has one, under an empty name. An App has
/// its own there, and one for each account where it is installed.
#[derive(Default)]
pub(super) struct Budgets(Mutex<BTreeMap<String, RateLimit>>);

impl Budgets {
    pub(super) fn record(&self, account: &str, response: &Response) {
        // A refused token counts against our IP address.
        if response.status != StatusCode::UNAUTHORIZED {
            self.update(account, &response.headers);
        }
    }

    fn update(&self, account: &str, headers: &HeaderMap) {
        let Some(new) = read(headers) else { return };
        let mut budgets = self.locked();
        if let Some(known) = budgets.get_mut(account) {
            *known = latest(*known, new);
        } else if budgets.len() < BUDGETS_MAX {
            budgets.insert(account.to_owned(), new);
        }
    }

    pub(super) fn all(&self) -> Vec<(String, RateLimit)> {
        self.locked().iter().map(|(account, budget)| (account.clone(), *budget)).collect()
    }

    pub(super) fn get(&self, account: &str) -> Option<RateLimit> {
        self.locked().get(account).copied()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, RateLimit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint of a path, for metrics: one of a closed list.
pub(super) fn endpoint(path: &str) -> &'static str {
    const ENDPOINTS: [&str; 12] = [
        "access_tokens",
        "attempts",
        "deliveries",
        "generate-jitconfig",
        "installation",
        "jobs",
        "registration-token",
        "rerun",
        "rerun-failed-jobs",
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
            // A response that was overtaken.
            (3_950, 1_001, "core", (3_900, 1_001)),
            (10, 1_001, "actions_runner_registration", (3_900, 1_001)),
            (4_999, 4_601, "core", (4_999, 4_601)),
            (1, 1_001, "core", (4_999, 4_601)),
        ] {
            budgets.update("", &headers(remaining, reset, resource));
            let budget = budgets.get("").unwrap();
            assert_eq!((budget.remaining, budget.reset), expected);
        }
        budgets.update("acme", &headers(7, 1_000, "core"));
        assert_eq!(budgets.get("").unwrap().remaining, 4_999);
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
