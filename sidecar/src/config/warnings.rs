//! Warnings: settings that are valid, and probably not what was meant.

use std::cmp::Reverse;

use super::Config;
use edgerunner_scheduler::plan::{Pool, RepositoryPattern};

impl Config {
    pub(crate) fn warnings(&self) -> Vec<String> {
        plain_jobs(self.planner_settings().pools)
    }
}

/// A pool with labels of its own that wins jobs which request only `self-hosted`.
fn plain_jobs(mut pools: Vec<Pool>) -> Vec<String> {
    pools.retain(|pool| !pool.require_labels);
    // The order in which the planner prefers them.
    pools.sort_by_key(|pool| (Reverse(pool.priority), pool.labels.len(), pool.name.clone()));
    let mut warnings = Vec::new();
    for (rank, winner) in pools.iter().enumerate() {
        if pools[..rank].iter().any(|better| overlap(better, winner)) {
            continue;
        }
        let loser = pools[rank + 1..].iter().find(|other| {
            other.priority == winner.priority
                && overlap(winner, other)
                && !winner.labels.is_subset(&other.labels)
        });
        if let Some(loser) = loser {
            let (winner, loser) = (&winner.name, &loser.name);
            warnings.push(format!(
                "pool {winner}: jobs that request only self-hosted go to this pool first, not to \
                 {loser}, because it has no more labels. If that is not intended, set \
                 require_labels = true for {winner}, or a higher priority for {loser}"
            ));
        }
    }
    warnings
}

/// Whether two pools may serve the same repository.
fn overlap(one: &Pool, other: &Pool) -> bool {
    let covers = |one: &RepositoryPattern, other: &RepositoryPattern| {
        one.matches_parts(other.owner(), other.name())
    };
    let (these, those) = (&one.repositories, &other.repositories);
    let covered = |this| those.iter().any(|that| covers(this, that) || covers(that, this));
    these.is_empty() || those.is_empty() || these.iter().any(covered)
}
