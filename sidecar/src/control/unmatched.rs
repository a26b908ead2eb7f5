//! Jobs that no pool serves: one log line for each set of labels, or for each repository if pools
//! refuse whose code the jobs run.

use std::{
    collections::{HashSet, VecDeque, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use tracing::{info, warn};

use crate::telemetry::logging::List;
use edgerunner_scheduler::{
    model::{Job, JobKey},
    plan::{NoMatch, State, Waiting, is_github_hosted},
};

/// Sets of labels to remember, 16 bytes each. A workflow may choose new labels for each job.
const SETS_MAX: usize = 1_000;

/// The sets of labels that were logged.
#[derive(Default)]
pub(super) struct UnmatchedLabels {
    /// Hashes of the subject and the reason.
    logged: HashSet<u64>,
    by_age: VecDeque<u64>,
}

impl UnmatchedLabels {
    /// Logs what is new among jobs whose reason has changed.
    pub(super) fn log(&mut self, reasons: &[(JobKey, Waiting)], state: &State) {
        for (key, reason) in reasons {
            if let (Waiting::NoPool(why), Some(job)) = (reason, state.job(*key))
                // GitHub's answer is expected.
                && *why != (NoMatch::RunUnknown { problem: None })
                && !is_github_hosted(&job.labels)
                && self.is_new(subject(job, why), reason)
            {
                log(job, why, reason);
            }
        }
    }

    /// Logs all again, because the pools have changed.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn is_new(&mut self, labels: &[String], reason: &Waiting) -> bool {
        let mut labels: Vec<String> =
            labels.iter().map(|label| label.to_ascii_lowercase()).collect();
        labels.sort();
        let mut hasher = DefaultHasher::new();
        (labels, reason.as_str()).hash(&mut hasher);
        let set = hasher.finish();
        if !self.logged.insert(set) {
            return false;
        }
        self.by_age.push_back(set);
        if self.by_age.len() > SETS_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.logged.remove(&oldest);
        }
        true
    }
}

/// What other jobs have in common that wait for the same reason.
fn subject<'a>(job: &'a Job, why: &NoMatch) -> &'a [String] {
    if why.is_refusal() { std::slice::from_ref(&job.repository) } else { &job.labels }
}

fn log(job: &Job, why: &NoMatch, reason: &Waiting) {
    let Job { key, repository, delivery, .. } = job;
    let labels = List(&job.labels);
    const MESSAGE: &str = "no pool serves jobs with these labels";
    match why {
        _ if why.is_refusal() => {
            warn!(%labels, repository, job = %key, host = %key.host, delivery, %reason, "no pool serves such jobs of this repository");
        }
        NoMatch::NotSelfHosted { .. } => {
            info!(%labels, repository, job = %key, host = %key.host, delivery, %reason, "{MESSAGE}");
        }
        _ => {
            warn!(%labels, repository, job = %key, host = %key.host, delivery, %reason, "{MESSAGE}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(label: &str) -> Waiting {
        let (labels, closest) = (vec![label.to_owned()], "default".to_owned());
        Waiting::NoPool(NoMatch::MissingLabels { labels, closest })
    }

    fn labels(labels: &[&str]) -> Vec<String> {
        labels.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_set_of_labels_is_new_once_whatever_the_order_and_case() {
        let mut logged = UnmatchedLabels::default();
        assert!(logged.is_new(&labels(&["self-hosted", "gpu"]), &reason("gpu")));
        assert!(!logged.is_new(&labels(&["GPU", "self-hosted"]), &reason("gpu")));
        assert!(logged.is_new(&labels(&["self-hosted", "arm"]), &reason("arm")));
        logged.forget();
        assert!(logged.is_new(&labels(&["self-hosted", "gpu"]), &reason("gpu")));
    }

    #[test]
    fn labels_that_never_repeat_fill_no_memory() {
        let mut logged = UnmatchedLabels::default();
        for run in 0..3 * SETS_MAX {
            assert!(logged.is_new(&labels(&["self-hosted", &run.to_string()]), &reason("run")));
        }
        assert_eq!((logged.logged.len(), logged.by_age.len()), (SETS_MAX, SETS_MAX));
    }
}
