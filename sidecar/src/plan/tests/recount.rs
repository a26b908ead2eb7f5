//! Every sum the state keeps, counted anew from jobs and runners.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::super::{
    GroupKey, Phase, Stage, State, credential_for,
    demand::{Counts, PoolCounts},
    jobs::Progress,
};
use crate::model::UnixMs;

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    queued: usize,
    demand: usize,
    min_idle: usize,
    provisioning: usize,
    starting: usize,
    idle: usize,
    busy: usize,
}

type Groups<'a> = BTreeMap<&'a GroupKey, Expected>;

pub(super) fn recount(state: &State) {
    let mut groups = Groups::new();
    let warm: Vec<GroupKey> = state
        .settings
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.min_idle > 0)
        .flat_map(|(index, pool)| {
            pool.targets_known_beforehand().into_iter().map(move |target| (index, target))
        })
        .collect();
    for key in &warm {
        groups.entry(key).or_default().min_idle = state.pool(key.0).min_idle;
    }
    let (mut counts, mut pool_counts) = runners(state, &mut groups);
    jobs(state, &mut groups);

    let mut wanting = vec![0; state.settings.pools.len()];
    let mut with_spare = wanting.clone();
    assert_eq!(state.groups.len(), groups.len(), "{:?} for {groups:?}", state.groups);
    for (key, expected) in groups {
        let group = &state.groups[key];
        let kept = Expected {
            queued: group.queued.len(),
            demand: group.demand,
            min_idle: group.min_idle,
            provisioning: group.provisioning,
            starting: group.starting,
            idle: group.idle,
            busy: group.busy,
        };
        assert_eq!(kept, expected, "{key:?}");
        let spare = expected.idle.saturating_sub(expected.queued + expected.min_idle);
        pool_counts[key.0].spare += spare;
        if spare > 0 {
            assert!(state.spare[key.0].contains(&key.1), "{key:?}");
            with_spare[key.0] += 1;
        }
        counts.spare += spare;
        let unused = expected.provisioning + expected.starting + expected.idle;
        if expected.demand + expected.min_idle > unused {
            let oldest = group.queued.first().map_or(UnixMs::MAX, |(at, _)| *at);
            assert!(state.wanting[key.0].contains(&(oldest, key.1.clone())), "{key:?}");
            wanting[key.0] += 1;
        }
    }
    for (kept, expected) in state.wanting.iter().zip(wanting) {
        assert_eq!(kept.len(), expected, "{kept:?}");
    }
    for (kept, expected) in state.spare.iter().zip(with_spare) {
        assert_eq!(kept.len(), expected, "{kept:?}");
    }
    assert_eq!(state.counts, counts);
    assert_eq!(state.pool_counts, pool_counts);
}

/// Without the spare ones, which jobs decide as well.
fn runners<'a>(state: &'a State, groups: &mut Groups<'a>) -> (Counts, Vec<PoolCounts>) {
    let mut counts = Counts::default();
    let mut pool_counts = vec![PoolCounts::default(); state.settings.pools.len()];
    let mut provisioning_with = vec![0; state.settings.credentials.len()];
    let mut deadlines = 0;
    for (name, runner) in &state.runners {
        assert_eq!(*name, runner.name);
        match runner.deadline {
            Some(at) => {
                assert!(state.deadlines.contains(&(at, name.clone())), "{runner:?}");
                deadlines += 1;
            }
            None => assert!(
                matches!(runner.phase, Phase::Leaving(_)),
                "it may stay for ever: {runner:?}"
            ),
        }
        // Runners of pools that are gone count among all, not in a group.
        let mut nowhere = (PoolCounts::default(), Expected::default());
        let (pool, group) = match &runner.group {
            Some(key) if matches!(runner.phase, Phase::Leaving(_)) => {
                (&mut pool_counts[key.0], &mut nowhere.1)
            }
            Some(key) => (&mut pool_counts[key.0], groups.entry(key).or_default()),
            None => (&mut nowhere.0, &mut nowhere.1),
        };
        if !matches!(&runner.phase, Phase::Leaving(leaving) if leaving.stopped) {
            counts.live += 1;
            pool.live += 1;
            let leaving = usize::from(matches!(runner.phase, Phase::Leaving(_)));
            counts.leaving += leaving;
            pool.leaving += leaving;
        }
        match runner.phase {
            Phase::Provisioning(stage) => {
                counts.provisioning += 1;
                counts.pulling += usize::from(stage == Stage::Image);
                pool.provisioning += 1;
                group.provisioning += 1;
                let credential = credential_for(&state.settings.credentials, &runner.target);
                if let Some(credential) = credential.filter(|_| runner.group.is_some()) {
                    provisioning_with[credential] += 1;
                }
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
    }
    assert_eq!(state.provisioning_with, provisioning_with);
    assert_eq!(state.deadlines.len(), deadlines);
    (counts, pool_counts)
}

#[derive(Default)]
struct Repository<'a> {
    running: usize,
    queued: HashMap<&'a GroupKey, usize>,
}

fn jobs<'a>(state: &'a State, groups: &mut Groups<'a>) {
    let mut in_progress = 0;
    let mut repositories: HashMap<&str, Repository<'_>> = HashMap::new();
    for (key, tracked) in &state.jobs {
        if let Progress::InProgress { since } = tracked.progress {
            assert!(state.in_progress.contains(&(since, *key)), "{key}");
            in_progress += 1;
        }
        let Ok(group) = &tracked.group else { continue };
        let repository = repositories.entry(&tracked.job.repository).or_default();
        match tracked.progress {
            Progress::Queued => {
                let kept = &state.groups[group].queued;
                assert!(kept.contains(&(tracked.job.queued_at, *key)), "{key}");
                groups.entry(group).or_default().queued += 1;
                *repository.queued.entry(group).or_default() += 1;
            }
            Progress::InProgress { .. } => repository.running += 1,
        }
    }
    assert_eq!(state.in_progress.len(), in_progress);
    assert_eq!(state.tombstones.len(), state.tombstones_by_age.len());

    assert_eq!(state.repositories.len(), repositories.len());
    for (name, expected) in repositories {
        let kept = &state.repositories[name];
        assert_eq!(kept.running, expected.running, "{name}");
        assert_eq!(kept.waiting.len(), expected.queued.len(), "{name}");
        let queued: usize = expected.queued.values().sum();
        let free = state.settings.max_per_repository.saturating_sub(expected.running);
        let allowed: usize = kept.waiting.values().map(|share| share.allowed).sum();
        assert_eq!(allowed, queued.min(free), "{name}");
        for ((Reverse(priority), key), share) in &kept.waiting {
            assert_eq!(*priority, state.pool(key.0).priority);
            assert_eq!(share.queued, expected.queued[key], "{name} at {key:?}");
            assert!(share.allowed <= share.queued);
            groups.entry(key).or_default().demand += share.allowed;
        }
    }
}
