//! How long jobs waited for a runner over the last hours, for a chart.

use std::collections::BTreeMap;

use serde::Serialize;

use edgerunner_scheduler::model::UnixMs;

pub(super) const SPAN_MS: u64 = 6 * 3_600_000;
const STEP_MS: u64 = 5 * 60_000;

/// Of the jobs that were taken within five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Waits {
    jobs: usize,
    median_ms: u64,
    longest_ms: u64,
}

/// When the first step that is shown begins.
pub(super) fn since(now: UnixMs) -> UnixMs {
    (now / STEP_MS * STEP_MS + STEP_MS).saturating_sub(SPAN_MS)
}

/// By the time at which each step begins; steps without jobs are left out.
pub(super) fn by_step(waits: &[(UnixMs, u64)]) -> BTreeMap<UnixMs, Waits> {
    let mut steps: BTreeMap<UnixMs, Vec<u64>> = BTreeMap::new();
    for (at, waited_ms) in waits {
        steps.entry(at / STEP_MS * STEP_MS).or_default().push(*waited_ms);
    }
    let summary = |mut waits: Vec<u64>| {
        waits.sort_unstable();
        let median_ms = waits[waits.len() / 2];
        let longest_ms = waits[waits.len() - 1];
        Waits { jobs: waits.len(), median_ms, longest_ms }
    };
    steps.into_iter().map(|(step, waits)| (step, summary(waits))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_summed_up_by_the_step_in_which_they_ended() {
        let waits = [(STEP_MS, 30), (STEP_MS + 1, 10), (2 * STEP_MS - 1, 20), (2 * STEP_MS, 7)];
        let expected = [
            (STEP_MS, Waits { jobs: 3, median_ms: 20, longest_ms: 30 }),
            (2 * STEP_MS, Waits { jobs: 1, median_ms: 7, longest_ms: 7 }),
        ];
        assert_eq!(by_step(&waits), expected.into());
        assert_eq!(by_step(&[]), BTreeMap::new());
    }

    #[test]
    fn the_step_that_runs_is_the_last_one_shown() {
        let now = 100 * STEP_MS + 1;
        assert_eq!(since(now), 101 * STEP_MS - SPAN_MS);
    }
}
