//! The limit of messages: at most one an hour about each cause.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{Kind, Notice};

const HOUR: Duration = Duration::from_secs(3_600);
/// How often there is a message about something that goes on.
const REMINDED_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// Something that was not noticed for this long has ended in the meantime.
const ENDED_AFTER: Duration = Duration::from_secs(600);
/// Causes that are remembered. A workflow can make up some of them.
const CAUSES_MAX: usize = 1_000;

/// What there were messages about.
#[derive(Default)]
pub(super) struct Limit(HashMap<(Kind, String), Known>);

struct Known {
    sent: Instant,
    noticed: Instant,
    /// Notices since the last message.
    suppressed: u64,
}

impl Limit {
    /// Whether there is to be a message about this, and about how many other events it is as well.
    pub(super) fn admit(&mut self, notice: &Notice, now: Instant) -> Option<u64> {
        let cause = (notice.kind, notice.subject.clone());
        if !self.0.contains_key(&cause) && self.0.len() >= CAUSES_MAX {
            self.0.retain(|_, known| now.duration_since(known.sent) < HOUR);
            if self.0.len() >= CAUSES_MAX {
                return None;
            }
        }
        let Some(known) = self.0.get_mut(&cause) else {
            self.0.insert(cause, Known { sent: now, noticed: now, suppressed: 0 });
            return Some(0);
        };
        let goes_on = notice.kind.lasts() && now.duration_since(known.noticed) < ENDED_AFTER;
        known.noticed = now;
        let every = if goes_on { REMINDED_EVERY } else { HOUR };
        if now.duration_since(known.sent) < every {
            // That the same goes on is no other event.
            known.suppressed += u64::from(!notice.kind.lasts());
            return None;
        }
        known.sent = now;
        Some(std::mem::take(&mut known.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn notice(kind: Kind, subject: &str) -> Notice {
        Notice { kind, subject: subject.to_owned(), message: "it happened".to_owned(), at: 1 }
    }

    #[test]
    fn there_is_one_message_an_hour_about_a_cause_with_the_number_of_the_others() {
        let (mut limit, begun) = (Limit::default(), Instant::now());
        let died = notice(Kind::RunnerDied, "default");
        assert_eq!(limit.admit(&died, begun), Some(0));
        assert_eq!(limit.admit(&notice(Kind::RunnerDied, "gpu"), begun), Some(0));
        assert_eq!(limit.admit(&notice(Kind::PoolFailing, "default"), begun), Some(0));
        for minutes in [1, 30, 59] {
            assert_eq!(limit.admit(&died, begun + minutes * MINUTE), None);
        }
        assert_eq!(limit.admit(&died, begun + 60 * MINUTE), Some(3));
        assert_eq!(limit.admit(&died, begun + 120 * MINUTE), Some(0));
    }

    #[test]
    fn what_goes_on_is_reminded_of_once_a_day_and_what_comes_back_after_an_hour() {
        let (mut limit, begun) = (Limit::default(), Instant::now());
        let failing = notice(Kind::PoolFailing, "image");
        let sent: Vec<u32> = (0..=24 * 60)
            .step_by(5)
            .filter(|minutes| limit.admit(&failing, begun + *minutes * MINUTE).is_some())
            .collect();
        assert_eq!(sent, [0, 24 * 60]);
        let again = begun + 24 * 60 * MINUTE;
        assert_eq!(limit.admit(&failing, again + 30 * MINUTE), None);
        assert_eq!(limit.admit(&failing, again + 61 * MINUTE), Some(0));
    }

    #[test]
    fn causes_that_are_made_up_do_not_pile_up() {
        let (mut limit, begun) = (Limit::default(), Instant::now());
        let of = |number: usize| notice(Kind::JobsUnmatched, &number.to_string());
        let sent = (0..2 * CAUSES_MAX).filter(|it| limit.admit(&of(*it), begun).is_some());
        assert_eq!(sent.count(), CAUSES_MAX);
        assert_eq!(limit.admit(&of(9_999_999), begun + HOUR), Some(0));
    }
}
