//! Warnings: settings that are valid, and probably not what was meant.

use std::cmp::Reverse;

use super::{Config, Gpus, PoolConfig, ProviderName};
use edgerunner_scheduler::plan::{Forks, Pool, RepositoryPattern};

impl Config {
    pub(crate) fn warnings(&self) -> Vec<String> {
        let pools = self.planner_settings().pools;
        let open: Vec<String> = pools.iter().filter(|pool| is_open(pool)).map(open_pool).collect();
        plain_jobs(pools)
            .into_iter()
            .chain(open)
            .chain(shared_gpus(&self.pools))
            .chain(without_limits(self))
            .collect()
    }
}

/// Pools whose limits a reserve needs and that have none.
fn without_limits(config: &Config) -> Vec<String> {
    let here = config.pools.iter().filter(|pool| pool.provider == ProviderName::Docker);
    let mut warnings = Vec::new();
    for pool in here {
        let promised = pool.promised();
        for (setting, is_missing) in [
            ("memory_mib", config.reserves.memory_mib.is_some() && promised.memory_mib == 0),
            ("cpus", config.reserves.cpus.is_some() && promised.cpu_millis == 0),
        ] {
            if is_missing {
                warnings.push(format!(
                    "pool {}: it has no {setting}, so its runners may use what \
                     docker.reserve_{setting} keeps for others, and launches do not wait for them. \
                     If that is not intended, set {setting} for this pool",
                    pool.name
                ));
            }
        }
    }
    warnings
}

fn open_pool(pool: &Pool) -> String {
    format!(
        "pool {}: it runs jobs of public repositories, also of pull requests from forks, so anyone \
         may get code run there that GitHub does not hold back for an approval. If that is not \
         intended, set forks = \"refuse\", or give forks a pool of their own with forks = \"only\"",
        pool.name
    )
}

/// A pool whose runners have GPUs for themselves, and one whose runners see all of them.
fn shared_gpus(pools: &[PoolConfig]) -> Option<String> {
    let with = |wanted: fn(&Gpus) -> bool| {
        pools.iter().find(|pool| {
            pool.provider == ProviderName::Docker
                && pool.container.gpus.as_ref().is_some_and(wanted)
        })
    };
    let own = &with(|gpus| matches!(gpus, Gpus::Number(_)))?.name;
    let all = &with(|gpus| *gpus == Gpus::All)?.name;
    Some(format!(
        "pool {all}: its runners use all GPUs, also those that a runner of pool {own} has for \
         itself. If that is not intended, set a number as gpus of {all}"
    ))
}

/// Whether a pool runs the code of anyone.
fn is_open(pool: &Pool) -> bool {
    pool.public_repositories && pool.forks == Forks::Allow
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
