//! Submissions on the stream that the sidecar has not replied to yet.

use std::{collections::VecDeque, time::Duration};

/// All times must come from one clock that never goes backwards.
#[derive(Debug)]
pub(crate) struct InFlight<T> {
    /// Token of the first entry; the following entries have consecutive tokens.
    first_token: u64,
    /// With their deadlines; `None` once taken. The first entry is never `None`.
    entries: VecDeque<Option<(Duration, T)>>,
    waiting: usize,
    max: usize,
    timeout: Duration,
}

impl<T> InFlight<T> {
    pub(crate) fn new(max: usize, timeout: Duration) -> Self {
        Self { first_token: 1, entries: VecDeque::new(), waiting: 0, max, timeout }
    }

    /// Returns the token to send with the submission; `None` if `max` entries are waiting.
    pub(crate) fn add(&mut self, entry: T, now: Duration) -> Option<u64> {
        if self.waiting >= self.max {
            return None;
        }
        let token = self.first_token.saturating_add(self.entries.len() as u64);
        self.entries.push_back(Some((now.saturating_add(self.timeout), entry)));
        self.waiting += 1;
        Some(token)
    }

    /// `None` if the token is unknown or was taken before.
    pub(crate) fn take(&mut self, token: u64) -> Option<T> {
        let index = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        let (_, entry) = self.entries.get_mut(index)?.take()?;
        self.waiting -= 1;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first_token += 1;
        }
        Some(entry)
    }

    /// Whether the oldest entry has timed out.
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        matches!(self.entries.front(), Some(Some((deadline, _))) if *deadline <= now)
    }

    /// Removes all entries, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.first_token += self.entries.len() as u64;
        self.waiting = 0;
        self.entries.drain(..).flatten().map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_entry_is_taken_once_by_its_token() {
        let mut in_flight = InFlight::new(2, SECOND);
        let first = in_flight.add("first", SECOND).unwrap();
        let second = in_flight.add("second", SECOND).unwrap();
        assert_eq!(in_flight.take(second), Some("second"));
        assert_eq!(in_flight.take(second), None);
        assert_eq!(in_flight.take(first), Some("first"));
        assert_ne!(in_flight.add("third", SECOND).unwrap(), second);
    }

    #[test]
    fn no_more_than_the_maximum_may_wait() {
        let mut in_flight = InFlight::new(1, SECOND);
        let token = in_flight.add((), SECOND).unwrap();
        assert_eq!(in_flight.add((), SECOND), None);
        in_flight.take(token);
        assert!(in_flight.add((), SECOND).is_some());
    }

    #[test]
    fn the_oldest_entry_decides_whether_a_reply_is_overdue() {
        let mut in_flight = InFlight::new(2, SECOND);
        assert!(!in_flight.is_overdue(10 * SECOND));
        let first = in_flight.add((), 10 * SECOND).unwrap();
        in_flight.add((), 11 * SECOND);
        assert!(!in_flight.is_overdue(11 * SECOND - Duration::from_nanos(1)));
        assert!(in_flight.is_overdue(11 * SECOND));
        in_flight.take(first);
        assert!(!in_flight.is_overdue(11 * SECOND));
        assert_eq!(in_flight.take_all().len(), 1);
        assert!(!in_flight.is_overdue(20 * SECOND));
    }

    #[test]
    fn a_token_is_never_reused() {
        let mut in_flight = InFlight::new(10, SECOND);
        let tokens: Vec<u64> = (0..4).map(|entry| in_flight.add(entry, SECOND).unwrap()).collect();
        // Taken out of order, and all at once when a stream ends.
        assert_eq!(in_flight.take(tokens[2]), Some(2));
        assert_eq!(in_flight.take(tokens[0]), Some(0));
        assert_eq!(in_flight.take_all(), [1, 3]);
        let next = in_flight.add(4, SECOND).unwrap();
        assert!(!tokens.contains(&next));
        for token in tokens {
            assert_eq!(in_flight.take(token), None);
        }
        assert_eq!(in_flight.take(u64::MAX), None);
        assert_eq!(in_flight.take(next), Some(4));
    }
}
