//! What was sent to the sidecar over the stream and has no reply yet.

use std::{collections::VecDeque, time::Duration};

/// Times are of any one clock that does not run backwards.
#[derive(Debug)]
pub struct InFlight<T> {
    /// The token of the first entry; those behind it have the next ones.
    first_token: u64,
    /// `None`: taken. The first never is.
    entries: VecDeque<Option<(Duration, T)>>,
    waiting: usize,
    max: usize,
    timeout: Duration,
}

impl<T> InFlight<T> {
    pub fn new(max: usize, timeout: Duration) -> Self {
        Self { first_token: 1, entries: VecDeque::new(), waiting: 0, max, timeout }
    }

    /// The token to send along; `None` if too many wait already.
    pub fn add(&mut self, entry: T, now: Duration) -> Option<u64> {
        if self.waiting >= self.max {
            return None;
        }
        let token = self.first_token.saturating_add(self.entries.len() as u64);
        self.entries.push_back(Some((now.saturating_add(self.timeout), entry)));
        self.waiting += 1;
        Some(token)
    }

    pub fn take(&mut self, token: u64) -> Option<T> {
        let index = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        let (_, entry) = self.entries.get_mut(index)?.take()?;
        self.waiting -= 1;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first_token += 1;
        }
        Some(entry)
    }

    /// Whether the oldest has waited for too long.
    pub fn is_late(&self, now: Duration) -> bool {
        matches!(self.entries.front(), Some(Some((deadline, _))) if *deadline <= now)
    }

    /// All of them, oldest first.
    pub fn take_all(&mut self) -> Vec<T> {
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
    fn each_is_taken_once_by_its_token() {
        let mut in_flight = InFlight::new(2, SECOND);
        let first = in_flight.add("first", SECOND).unwrap();
        let second = in_flight.add("second", SECOND).unwrap();
        assert_eq!(in_flight.take(second), Some("second"));
        assert_eq!(in_flight.take(second), None);
        assert_eq!(in_flight.take(first), Some("first"));
        assert_ne!(in_flight.add("third", SECOND).unwrap(), second);
    }

    #[test]
    fn no_more_than_the_maximum_wait() {
        let mut in_flight = InFlight::new(1, SECOND);
        let token = in_flight.add((), SECOND).unwrap();
        assert_eq!(in_flight.add((), SECOND), None);
        in_flight.take(token);
        assert!(in_flight.add((), SECOND).is_some());
    }

    #[test]
    fn the_oldest_tells_whether_a_reply_is_late() {
        let mut in_flight = InFlight::new(2, SECOND);
        assert!(!in_flight.is_late(10 * SECOND));
        let first = in_flight.add((), 10 * SECOND).unwrap();
        in_flight.add((), 11 * SECOND);
        assert!(!in_flight.is_late(11 * SECOND - Duration::from_nanos(1)));
        assert!(in_flight.is_late(11 * SECOND));
        in_flight.take(first);
        assert!(!in_flight.is_late(11 * SECOND));
        assert_eq!(in_flight.take_all().len(), 1);
        assert!(!in_flight.is_late(20 * SECOND));
    }

    #[test]
    fn a_token_is_never_given_again() {
        let mut in_flight = InFlight::new(10, SECOND);
        let tokens: Vec<u64> = (0..4).map(|entry| in_flight.add(entry, SECOND).unwrap()).collect();
        // Out of order, and those of a stream that has ended.
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
