//! GitHub's rate limits: how long a response asks to wait, and the pause of a credential.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, StatusCode, header};

/// GitHub's advice for a secondary limit that names no time.
const SECONDARY_LIMIT_WAIT: Duration = Duration::from_secs(60);

/// GitHub's limits are per hour, so a longer wait is an error in a header.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long GitHub asks to wait after this response: a limit was hit or, with a 5xx, there is a
/// `Retry-After`. `None` for a 403 about permissions.
pub(super) fn wait(
    status: StatusCode,
    headers: &HeaderMap,
    message: &str,
    now: SystemTime,
) -> Option<Duration> {
    let limits = matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
    if !limits && !status.is_server_error() {
        return None;
    }
    let now = sender_now(headers, now);
    if let Some(wait) =
        text(headers, &header::RETRY_AFTER).and_then(|value| retry_after(value, now))
    {
        return Some(wait.min(WAIT_MAX));
    }
    if !limits {
        return None;
    }
    if number(headers, "x-ratelimit-remaining") == Some(0)
        && let Some(reset) = number(headers, "x-ratelimit-reset")
    {
        let reset = UNIX_EPOCH.checked_add(Duration::from_secs(reset))?;
        // The header is rounded down to whole seconds.
        let wait = reset.duration_since(now).unwrap_or_default() + Duration::from_secs(1);
        return Some(wait.min(WAIT_MAX));
    }
    let message = message.to_ascii_lowercase();
    let secondary = status == StatusCode::TOO_MANY_REQUESTS
        || message.contains("rate limit")
        || message.contains("abuse detection");
    secondary.then_some(SECONDARY_LIMIT_WAIT)
}

/// Now by the clock that wrote the response's other times; ours may be off. `ours` if the
/// response does not say.
pub(super) fn sender_now(headers: &HeaderMap, ours: SystemTime) -> SystemTime {
    text(headers, &header::DATE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or(ours)
}

fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The time until which no call may be made with a credential: a limit that GitHub reports to
/// one call holds for all of them.
#[derive(Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    pub(super) fn extend(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused = self.locked();
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// The time left, rounded up so that a caller that waits for it does not retry too early.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let left = self.locked().and_then(|until| until.checked_duration_since(Instant::now()))?;
        Some(left + Duration::from_millis(1))
    }

    fn locked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn seconds(status: u16, pairs: &[(&'static str, &str)], message: &str) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW_S);
        let status = StatusCode::from_u16(status).unwrap();
        wait(status, &headers(pairs), message, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_takes_precedence() {
        let reset = (NOW_S + 500).to_string();
        let both = [
            ("retry-after", "30"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", reset.as_str()),
        ];
        assert_eq!(seconds(403, &both, ""), Some(30));
        assert_eq!(seconds(429, &both[1..], ""), Some(501));
    }

    #[test]
    fn retry_after_may_be_a_date_by_the_senders_clock() {
        let at = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW_S + 90));
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW_S + 60));
        assert_eq!(seconds(429, &[("retry-after", &at)], ""), Some(90));
        assert_eq!(seconds(429, &[("retry-after", &at), ("date", &date)], ""), Some(30));
    }

    #[test]
    fn a_limit_without_a_time_means_a_minute() {
        assert_eq!(seconds(403, &[], "You have exceeded a secondary rate limit."), Some(60));
        assert_eq!(seconds(429, &[], ""), Some(60));
        assert_eq!(seconds(429, &[("retry-after", "soon")], ""), Some(60));
    }

    #[test]
    fn a_403_about_permissions_is_no_limit() {
        let plenty = [("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "1700000500")];
        assert_eq!(seconds(403, &plenty, "Resource not accessible by personal access token"), None);
        assert_eq!(seconds(404, &[("retry-after", "30")], ""), None);
    }

    #[test]
    fn a_past_reset_and_an_absurd_wait_are_bounded() {
        let past = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1600000000")];
        assert_eq!(seconds(403, &past, ""), Some(1));
        assert_eq!(seconds(503, &[("retry-after", "99999999999")], ""), Some(3600));
        assert_eq!(seconds(503, &[], ""), None);
    }
}
