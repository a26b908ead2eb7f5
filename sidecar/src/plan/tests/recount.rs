//! Every sum the state keeps, counted anew from jobs and runners.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use super::super::{
    GroupKey, Phase, Stage, State,
    demand::{Counts, PoolCounts},
    jobs::Progress,
};
use crate::model::{JobKey, UnixMs};

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    queued: BTreeSet<(UnixMs, JobKey)>,
    provisioning: usize,
    starting: usize,
    idle: usize,
    busy: usize,
    min_idle: usize,
}

pub(super) fn recount(state: &State) {
    let groups = runners(state);
    jobs(state, groups);
}

fn runners(state: &State) -> BTreeMap<GroupKey, Expected> {
    let mut counts = Counts::default();
    let mut pool_counts = vec![PoolCounts::default(); state.settings.pools.len()];
    let mut groups: BTreeMap<GroupKey, Expected> = BTreeMap::new();
    let mut deadlines = BTreeSet::new();
    let mut unused = Expected::default();
    let mut nowhere = PoolCounts::default();
    for (name, runner) in &state.runners {
        assert_eq!(*name, runner.name);
        deadlines.extend(runner.deadline.map(|at| (at, name.clone())));
        let pool =
            runner.group.as_ref().map_or(&mut nowhere, |(index, _)| &mut pool_counts[*index]);
        if !matches!(&runner.phase, Phase::Leaving(leaving) if leaving.stopped) {
            counts.live += 1;
            pool.live += 1;
        }
        let leaving = matches!(runner.phase, Phase::Leaving(_));
        let group = match &runner.group {
            Some(key) if !leaving => groups.entry(key.clone()).or_default(),
            _ => &mut unused,
        };
        match runner.phase {
            Phase::Provisioning(stage) => {
                counts.provisioning += 1;
                counts.pulling += usize::from(stage == Stage::Image);
                pool.provisioning += 1;
                group.provisioning += 1;
            }
            Phase::Starting => {
                counts.starting += 1;
                pool.starting += 1;
                group.starting += 1;
            }
            Phase::Idle => {
                counts.idle += 1;
                group.idle += 1;
            }
            Phase::Busy => group.busy += 1,
            Phase::Leaving(_) => {}
        }
        if !leaving {
            assert!(runner.deadline.is_some(), "{name} may stay for ever: {runner:?}");
        }
    }
    assert_eq!(state.counts, counts);
    assert_eq!(state.pool_counts, pool_counts);
    assert_eq!(state.deadlines, deadlines);
    groups
}

fn jobs(state: &State, mut groups: BTreeMap<GroupKey, Expected>) {
    for (index, pool) in state.settings.pools.iter().enumerate() {
        if pool.min_idle > 0 {
            for target in pool.targets_known_beforehand() {
                groups.entry((index, target)).or_default().min_idle = pool.min_idle;
            }
        }
    }
    let mut in_progress = BTreeSet::new();
    let mut running: HashMap<&str, usize> = HashMap::new();
    let mut waiting: HashMap<&str, BTreeMap<(Reverse<i32>, GroupKey), usize>> = HashMap::new();
    for (key, tracked) in &state.jobs {
        assert!(!state.tombstones.contains_key(key), "{key} lives and is over");
        let repository = tracked.job.repository.as_str();
        if let Progress::InProgress { since } = tracked.progress {
            in_progress.insert((since, *key));
        }
        let Ok(group) = &tracked.group else { continue };
        match tracked.progress {
            Progress::Queued => {
                let queued = &mut groups.entry(group.clone()).or_default().queued;
                queued.insert((tracked.job.queued_at, *key));
                let place = (Reverse(state.pool(group.0).priority), group.clone());
                *waiting.entry(repository).or_default().entry(place).or_default() += 1;
            }
            Progress::InProgress { .. } => *running.entry(repository).or_default() += 1,
        }
    }
    assert_eq!(state.in_progress, in_progress);
    assert_eq!(state.tombstones.len(), state.tombstones_by_age.len());

    let mut demand: BTreeMap<&GroupKey, usize> = BTreeMap::new();
    for name in state.repositories.keys() {
        assert!(
            running.contains_key(name.as_str()) || waiting.contains_key(name.as_str()),
            "{name} is kept without a job"
        );
    }
    for (name, queued) in &waiting {
        let found = &state.repositories[*name];
        let ours: BTreeMap<_, usize> =
            found.waiting.iter().map(|(place, share)| (place.clone(), share.queued)).collect();
        assert_eq!(ours, *queued, "{name}");
        let runs = running.get(name).copied().unwrap_or(0);
        let all: usize = queued.values().sum();
        let allowed: usize = found.waiting.values().map(|share| share.allowed).sum();
        assert_eq!(allowed, all.min(state.settings.max_per_repository.saturating_sub(runs)));
        for ((_, key), share) in &found.waiting {
            assert!(share.allowed <= share.queued);
            *demand.entry(key).or_default() += share.allowed;
        }
    }
    for (name, runs) in &running {
        assert_eq!(state.repositories[*name].running, *runs, "{name}");
    }

    let mut wanting = vec![BTreeSet::new(); state.settings.pools.len()];
    assert_eq!(state.groups.keys().collect::<Vec<_>>(), groups.keys().collect::<Vec<_>>());
    for (key, expected) in groups {
        let group = &state.groups[&key];
        assert_eq!(group.demand, demand.get(&key).copied().unwrap_or(0), "{key:?}");
        let deficit = (group.demand + expected.min_idle)
            .saturating_sub(expected.provisioning + expected.starting + expected.idle);
        let oldest = expected.queued.first().map_or(UnixMs::MAX, |(at, _)| *at);
        if deficit > 0 {
            wanting[key.0].insert((oldest, key.1.clone()));
        }
        let kept = Expected {
            queued: group.queued.clone(),
            provisioning: group.provisioning,
            starting: group.starting,
            idle: group.idle,
            busy: group.busy,
            min_idle: group.min_idle,
        };
        assert_eq!(kept, expected, "{key:?}");
    }
    assert_eq!(state.wanting, wanting);
}
