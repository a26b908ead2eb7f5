//! Queue times: how long jobs waited for a runner over the last hours, for a chart.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::store::QueueTime;
use edgerunner_scheduler::model::UnixMs;

const SPAN_MS: u64 = 6 * 3_600_000;
const STEP_MS: u64 = 5 * 60_000;

/// Summary of the jobs that runners took within one step of five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct QueueTimes {
    jobs: usize,
    median_ms: u64,
    longest_ms: u64,
}

/// When the first step in the chart begins.
pub(super) fn since(now: UnixMs) -> UnixMs {
    (now / STEP_MS * STEP_MS + STEP_MS).saturating_sub(SPAN_MS)
}

/// Groups queue times by the start of their step; steps without jobs are left out.
pub(super) fn by_step(times: &[QueueTime]) -> BTreeMap<UnixMs, QueueTimes> {
    let mut steps: BTreeMap<UnixMs, Vec<u64>> = BTreeMap::new();
    for time in times {
        steps.entry(time.started_at / STEP_MS * STEP_MS).or_default().push(time.waited_ms);
    }
    let summary = |mut waits: Vec<u64>| {
        waits.sort_unstable();
        let median_ms = waits[waits.len() / 2];
        let longest_ms = waits[waits.len() - 1];
        QueueTimes { jobs: waits.len(), median_ms, longest_ms }
    };
    steps.into_iter().map(|(step, waits)| (step, summary(waits))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_times_are_summarized_by_the_step_in_which_they_ended() {
        let times = [(STEP_MS, 30), (STEP_MS + 1, 10), (2 * STEP_MS - 1, 20), (2 * STEP_MS, 7)];
        let times = times.map(|(started_at, waited_ms)| QueueTime { started_at, waited_ms });
        let expected = [
            (STEP_MS, QueueTimes { jobs: 3, median_ms: 20, longest_ms: 30 }),
            (2 * STEP_MS, QueueTimes { jobs: 1, median_ms: 7, longest_ms: 7 }),
        ];
        assert_eq!(by_step(&times), expected.into());
        assert_eq!(by_step(&[]), BTreeMap::new());
    }

    #[test]
    fn the_current_step_is_the_last_one_in_the_chart() {
        let now = 100 * STEP_MS + 1;
        assert_eq!(since(now), 101 * STEP_MS - SPAN_MS);
    }
}
