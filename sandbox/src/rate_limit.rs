//! GitHub's primary rate limit: requests an hour, for each bucket.

use std::time::Duration;

use jiff::Timestamp;

const WINDOW: Duration = Duration::from_secs(3_600);

/// GitHub's limit for requests without a valid token.
const ADDRESS_LIMIT: u32 = 60;

/// Which requests share a rate limit.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum RateLimitBucket {
    /// Those with this token, an index in `Settings::tokens`.
    Token(usize),
    /// Those with any token of this installation.
    Installation(u64),
    /// Those of the GitHub App itself.
    App,
    /// Those without a valid token.
    Address,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RateWindow {
    pub limit: u32,
    pub used: u32,
    pub reset_at: Timestamp,
}

impl RateWindow {
    pub(crate) fn new(bucket: RateLimitBucket, requests_per_hour: u32, now: Timestamp) -> Self {
        let limit = match bucket {
            RateLimitBucket::Address => requests_per_hour.min(ADDRESS_LIMIT),
            _ => requests_per_hour,
        };
        Self { limit, used: 0, reset_at: now + WINDOW }
    }

    pub(crate) fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}
