//! Spending: what each credential's requests to GitHub were for in the last hour.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;

const STEP: Duration = Duration::from_secs(60);
const STEPS_MAX: usize = 60;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Launches,
    Removals,
    /// Of runners and jobs whose webhooks may be lost.
    LookUps,
    MissedWebhooks,
    /// Installations of a GitHub App and their tokens.
    Tokens,
    /// Commands.
    Other,
}

impl Purpose {
    pub(crate) const ALL: [Self; 6] = [
        Self::Launches,
        Self::Removals,
        Self::LookUps,
        Self::MissedWebhooks,
        Self::Tokens,
        Self::Other,
    ];

    /// Stable name for metrics, the API and scripts.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Launches => "launches",
            Self::Removals => "removals",
            Self::LookUps => "look_ups",
            Self::MissedWebhooks => "missed_webhooks",
            Self::Tokens => "tokens",
            Self::Other => "other",
        }
    }
}

/// How GitHub answered a request that counts against its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// Status 4xx.
    Refused,
    /// Status 5xx, or no response.
    Failed,
}

impl Outcome {
    pub(crate) const ALL: [Self; 3] = [Self::Ok, Self::Refused, Self::Failed];

    /// `None`: status 304, which is free. `status`: `None` without a response.
    pub(super) fn of(status: Option<StatusCode>) -> Option<Self> {
        match status {
            Some(StatusCode::NOT_MODIFIED) => None,
            Some(status) if status.is_client_error() => Some(Self::Refused),
            Some(status) if !status.is_server_error() => Some(Self::Ok),
            _ => Some(Self::Failed),
        }
    }

    /// Stable name for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Requests for one purpose within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    pub purpose: Purpose,
    pub requests: u64,
    /// Those of `requests` that GitHub refused.
    pub refused: u64,
    /// Those of `requests` that failed otherwise.
    pub failed: u64,
}

/// Requests by purpose and outcome.
type Counts = [[u64; Outcome::ALL.len()]; Purpose::ALL.len()];

/// The requests of a credential, in steps of a minute, oldest first.
#[derive(Default)]
pub(super) struct Spending(Mutex<VecDeque<(Instant, Counts)>>);

impl Spending {
    pub(super) fn record(&self, purpose: Purpose, outcome: Outcome, now: Instant) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.back().is_none_or(|(began, _)| *began + STEP <= now) {
            if steps.len() >= STEPS_MAX {
                steps.pop_front();
            }
            steps.push_back((now, Counts::default()));
        }
        if let Some((_, counts)) = steps.back_mut() {
            counts[purpose as usize][outcome as usize] += 1;
        }
    }

    /// Without purposes that no request was for.
    pub(super) fn last_hour(&self, now: Instant) -> Vec<Spent> {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || steps.iter().filter(|(began, _)| *began + STEP * STEPS_MAX as u32 > now);
        let count = |purpose: Purpose, outcome: Outcome| -> u64 {
            recent().map(|(_, counts)| counts[purpose as usize][outcome as usize]).sum()
        };
        let spent = Purpose::ALL.into_iter().map(|purpose| {
            let refused = count(purpose, Outcome::Refused);
            let failed = count(purpose, Outcome::Failed);
            let requests = count(purpose, Outcome::Ok) + refused + failed;
            Spent { purpose, requests, refused, failed }
        });
        spent.filter(|it| it.requests > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hours_requests_are_counted_by_purpose() {
        let (spending, start) = (Spending::default(), Instant::now());
        for minute in 0..120 {
            let now = start + STEP * minute;
            spending.record(Purpose::Launches, Outcome::Ok, now);
            spending.record(Purpose::Launches, Outcome::Refused, now);
        }
        let now = start + STEP * 120;
        spending.record(Purpose::Tokens, Outcome::Failed, now - Duration::from_secs(1));
        let launches = Spent { purpose: Purpose::Launches, requests: 118, refused: 59, failed: 0 };
        let tokens = Spent { purpose: Purpose::Tokens, requests: 1, refused: 0, failed: 1 };
        assert_eq!(spending.last_hour(now), [launches, tokens]);
        assert_eq!(spending.last_hour(now + STEP * 60), []);
    }

    #[test]
    fn an_unchanged_list_is_free() {
        let of = |status| Outcome::of(Some(StatusCode::from_u16(status).unwrap()));
        assert_eq!(of(304), None);
        for (status, expected) in [
            (200, Outcome::Ok),
            (204, Outcome::Ok),
            (301, Outcome::Ok),
            (404, Outcome::Refused),
            (429, Outcome::Refused),
            (502, Outcome::Failed),
        ] {
            assert_eq!(of(status), Some(expected), "{status}");
        }
        assert_eq!(Outcome::of(None), Some(Outcome::Failed));
    }
}
