//! Deliveries without a reply, in order of arrival: those that wait for a way to the sidecar, and
//! those that were sent to it.

use std::{collections::VecDeque, time::Duration};

/// Most deliveries, and most bytes of their bodies and messages.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub count: usize,
    pub bytes: u64,
}

/// All times must come from one clock that never goes backwards.
#[derive(Debug)]
pub struct Unanswered<T> {
    /// Token of the first entry; the following entries have consecutive tokens.
    first_token: u64,
    /// `None` once taken. The first entry is never `None`.
    entries: VecDeque<Option<Entry<T>>>,
    limits: Limits,
    count: usize,
    bytes: u64,
    sent: usize,
    /// All entries before this position are sent or taken.
    next: usize,
}

#[derive(Debug)]
pub struct Entry<T> {
    pub waiting: T,
    /// The sidecar may have stored the event before this submission of it.
    pub resent: bool,
    /// It could not be sent at once, or had to be sent again.
    pub held: bool,
    /// The status if time runs out before it is sent.
    pub status: u32,
    /// Whether it was sent and has no reply yet.
    pub sent: bool,
    message: Vec<u8>,
    deadline: Duration,
    bytes: u64,
    /// How many streams ended with nothing but this submission on them.
    failures: u8,
}

impl<T> Unanswered<T> {
    pub fn new(limits: Limits) -> Self {
        Self {
            first_token: 1,
            entries: VecDeque::new(),
            limits,
            count: 0,
            bytes: 0,
            sent: 0,
            next: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many were sent and have no reply yet.
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Whether some have not been sent.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.count
    }

    /// Returns the token; `None` if a limit is reached. `message` gets the token; `body_bytes` is
    /// what Envoy keeps in memory as long as there is no answer.
    pub fn add(
        &mut self,
        waiting: T,
        deadline: Duration,
        status: u32,
        body_bytes: u64,
        message: impl FnOnce(u64) -> Vec<u8>,
    ) -> Option<u64> {
        if self.count >= self.limits.count
            || self.bytes.saturating_add(body_bytes) > self.limits.bytes
        {
            return None;
        }
        let token = self.first_token.saturating_add(self.entries.len() as u64);
        let message = message(token);
        let bytes = body_bytes.saturating_add(message.len() as u64);
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push_back(Some(Entry {
            waiting,
            resent: false,
            held: false,
            status,
            sent: false,
            message,
            deadline,
            bytes,
            failures: 0,
        }));
        Some(token)
    }

    /// Sends the oldest one that is not sent. `false` if there is none or `send` failed.
    pub fn send_next(&mut self, send: impl FnOnce(&[u8]) -> bool) -> bool {
        while let Some(entry) = self.entries.get_mut(self.next) {
            match entry {
                Some(entry) if !entry.sent => {
                    entry.sent = send(&entry.message);
                    self.sent += usize::from(entry.sent);
                    return entry.sent;
                }
                _ => self.next += 1,
            }
        }
        false
    }

    /// Marks it as held unless it is sent. Returns whether it is now held.
    pub fn hold(&mut self, token: u64) -> bool {
        self.get(token).is_some_and(|entry| {
            entry.held |= !entry.sent;
            entry.held
        })
    }

    /// The sidecar could not store it: it is to be sent again. Returns whether it exists.
    pub fn requeue(&mut self, token: u64, status: u32, maybe_stored: bool) -> bool {
        let Some(index) = self.position(token) else {
            return false;
        };
        let Some(Some(entry)) = self.entries.get_mut(index) else {
            return false;
        };
        self.sent -= usize::from(entry.sent);
        entry.sent = false;
        entry.held = true;
        entry.resent |= maybe_stored;
        entry.status = status;
        self.next = self.next.min(index);
        true
    }

    /// All that were sent are to be sent again: their replies will not arrive. Returns the token
    /// of the only one that was sent, if it has now been so more than `failures_max` times.
    pub fn requeue_sent(&mut self, failures_max: Option<u8>) -> Option<u64> {
        let alone = self.sent == 1;
        let mut failed = None;
        for (token, entry) in (self.first_token..).zip(&mut self.entries) {
            if let Some(entry) = entry
                && entry.sent
            {
                entry.sent = false;
                entry.held = true;
                entry.resent = true;
                if let Some(max) = failures_max
                    && alone
                {
                    entry.failures += 1;
                    failed = (entry.failures > max).then_some(token);
                }
            }
        }
        self.sent = 0;
        self.next = 0;
        failed
    }

    /// `None` if the token is unknown or was taken before.
    pub fn take(&mut self, token: u64) -> Option<Entry<T>> {
        let index = self.position(token)?;
        let entry = self.entries.get_mut(index)?.take()?;
        self.forget(&entry);
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first_token += 1;
            self.next = self.next.saturating_sub(1);
        }
        Some(entry)
    }

    /// Removes those whose time is over, oldest first.
    pub fn take_overdue(&mut self, now: Duration) -> Vec<Entry<T>> {
        self.take_if(|entry| entry.deadline <= now)
    }

    /// Removes all, oldest first.
    pub fn take_all(&mut self) -> Vec<Entry<T>> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, wanted: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        let mut taken = Vec::new();
        let end = self.first_token.saturating_add(self.entries.len() as u64);
        let mut token = self.first_token;
        while token < end {
            if self.get(token).is_some_and(|entry| wanted(entry)) {
                taken.extend(self.take(token));
            }
            token += 1;
        }
        taken
    }

    fn get(&mut self, token: u64) -> Option<&mut Entry<T>> {
        self.position(token).and_then(|index| self.entries.get_mut(index)?.as_mut())
    }

    fn position(&self, token: u64) -> Option<usize> {
        usize::try_from(token.checked_sub(self.first_token)?).ok()
    }

    fn forget(&mut self, entry: &Entry<T>) {
        self.count -= 1;
        self.bytes -= entry.bytes;
        self.sent -= usize::from(entry.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const UNAVAILABLE: u32 = 14;

    fn unanswered(count: usize, bytes: u64) -> Unanswered<u32> {
        Unanswered::new(Limits { count, bytes })
    }

    impl Unanswered<u32> {
        /// With a message of one byte.
        fn push(&mut self, waiting: u32) -> Option<u64> {
            self.add(waiting, SECOND * waiting, UNAVAILABLE, 9, |_| vec![waiting as u8])
        }

        fn sent_now(&mut self) -> Vec<u8> {
            let mut sent = Vec::new();
            while self.send_next(|message| {
                sent.extend_from_slice(message);
                true
            }) {}
            sent
        }
    }

    #[test]
    fn each_entry_is_taken_once_by_its_token() {
        let mut unanswered = unanswered(2, 100);
        let first = unanswered.push(1).unwrap();
        let second = unanswered.push(2).unwrap();
        assert_eq!(unanswered.take(second).unwrap().waiting, 2);
        assert!(unanswered.take(second).is_none());
        assert_eq!(unanswered.take(first).unwrap().waiting, 1);
        assert!(unanswered.is_empty());
        assert_ne!(unanswered.push(3).unwrap(), second);
    }

    #[test]
    fn no_more_than_the_maximum_may_wait() {
        let mut by_count = unanswered(1, 100);
        let token = by_count.push(1).unwrap();
        assert_eq!(by_count.push(2), None);
        by_count.take(token);
        assert!(by_count.push(2).is_some());

        let mut by_bytes = unanswered(100, 20);
        let token = by_bytes.push(1).unwrap();
        assert!(by_bytes.push(2).is_some());
        assert_eq!(by_bytes.push(3), None);
        by_bytes.take(token);
        assert!(by_bytes.push(3).is_some());
        by_bytes.take_all();
        assert!(by_bytes.push(4).is_some());
    }

    #[test]
    fn they_are_sent_in_order_of_arrival_and_once() {
        let mut unanswered = unanswered(9, 100);
        let tokens: Vec<u64> = (1..=4).map(|number| unanswered.push(number).unwrap()).collect();
        unanswered.take(tokens[1]);
        assert_eq!(unanswered.sent_now(), [1, 3, 4]);
        assert!(unanswered.sent_now().is_empty());
        assert_eq!(unanswered.in_flight(), 3);
        unanswered.push(5);
        assert!(unanswered.has_unsent());
        assert_eq!(unanswered.sent_now(), [5]);
        unanswered.take(tokens[0]);
        // The sidecar has refused one, then the stream ends.
        assert!(unanswered.requeue(tokens[2], 8, false));
        assert_eq!(unanswered.in_flight(), 2);
        assert_eq!(unanswered.sent_now(), [3]);
        assert_eq!(unanswered.requeue_sent(Some(0)), None);
        assert_eq!(unanswered.sent_now(), [3, 4, 5]);
        assert!(unanswered.take_all().iter().all(|entry| entry.resent && entry.held));
    }

    #[test]
    fn a_message_that_could_not_be_sent_is_still_the_next() {
        let mut unanswered = unanswered(9, 100);
        unanswered.push(1);
        assert!(!unanswered.send_next(|_| false));
        assert_eq!(unanswered.sent_now(), [1]);
    }

    #[test]
    fn only_what_is_not_sent_is_held() {
        let mut unanswered = unanswered(9, 100);
        let first = unanswered.push(1).unwrap();
        unanswered.sent_now();
        let second = unanswered.push(2).unwrap();
        assert!(!unanswered.hold(first));
        assert!(unanswered.hold(second));
        assert!(!unanswered.hold(99));
    }

    #[test]
    fn whatever_ends_stream_after_stream_alone_is_given_up() {
        let mut unanswered = unanswered(9, 100);
        let first = unanswered.push(1).unwrap();
        unanswered.push(2);
        for _ in 0..3 {
            // Which of the two it was is not known.
            unanswered.sent_now();
            assert_eq!(unanswered.requeue_sent(Some(1)), None);
        }
        unanswered.send_next(|_| true);
        assert_eq!(unanswered.requeue_sent(Some(1)), None);
        unanswered.send_next(|_| true);
        // Ended by this side, so the submission is not to blame.
        assert_eq!(unanswered.requeue_sent(None), None);
        unanswered.send_next(|_| true);
        assert_eq!(unanswered.requeue_sent(Some(1)), Some(first));
    }

    #[test]
    fn each_has_its_own_deadline() {
        let mut unanswered = unanswered(9, 100);
        for number in [2, 1, 3] {
            unanswered.push(number);
        }
        unanswered.send_next(|_| true);
        let overdue = |unanswered: &mut Unanswered<u32>, now| {
            let overdue = unanswered.take_overdue(now);
            overdue.iter().map(|entry| (entry.waiting, entry.sent)).collect::<Vec<_>>()
        };
        assert_eq!(overdue(&mut unanswered, SECOND - Duration::from_nanos(1)), []);
        assert_eq!(overdue(&mut unanswered, SECOND), [(1, false)]);
        assert_eq!(overdue(&mut unanswered, 5 * SECOND), [(2, true), (3, false)]);
        assert_eq!((unanswered.is_empty(), unanswered.in_flight()), (true, 0));
    }

    #[test]
    fn a_token_is_never_reused() {
        let mut unanswered = unanswered(10, 100);
        let tokens: Vec<u64> = (0..4).map(|number| unanswered.push(number).unwrap()).collect();
        // Taken out of order, and all at once.
        assert_eq!(unanswered.take(tokens[2]).unwrap().waiting, 2);
        assert_eq!(unanswered.take(tokens[0]).unwrap().waiting, 0);
        let rest = unanswered.take_all();
        assert_eq!(rest.iter().map(|entry| entry.waiting).collect::<Vec<_>>(), [1, 3]);
        let next = unanswered.push(4).unwrap();
        assert!(!tokens.contains(&next));
        for token in tokens {
            assert!(unanswered.take(token).is_none());
        }
        assert!(unanswered.take(u64::MAX).is_none());
        assert_eq!(unanswered.take(next).unwrap().waiting, 4);
    }
}
