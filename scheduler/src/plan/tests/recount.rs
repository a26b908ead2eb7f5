//! Recounts, from jobs and runners, every sum that the state keeps.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::super::{
    LaneKey, Phase, Stage, State, credential_for,
    demand::{Counts, PoolCounts},
    host_for_name,
};
use crate::model::{Host, Instant, JobState, Target};

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

type Lanes<'a> = BTreeMap<&'a LaneKey, Expected>;

pub(super) fn recount(state: &State) {
    let mut lanes = Lanes::new();
    let warm: Vec<LaneKey> = state
        .settings
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.min_idle > 0)
        .flat_map(|(index, pool)| {
            let on_its_server = |target: Target| {
                let host = host_for_name(&state.settings.credentials, &target);
                target.on(host)
            };
            pool.known_targets().into_iter().map(move |target| (index, on_its_server(target)))
        })
        .collect();
    for key in &warm {
        lanes.entry(key).or_default().min_idle = state.pool(key.0).min_idle;
    }
    let (mut counts, mut pool_counts) = runners(state, &mut lanes);
    jobs(state, &mut lanes);

    let mut in_deficit = vec![0; state.settings.pools.len()];
    let mut with_preemptible = in_deficit.clone();
    assert_eq!(state.lanes.len(), lanes.len(), "{:?} for {lanes:?}", state.lanes);
    for (key, expected) in lanes {
        let lane = &state.lanes[key];
        let kept = Expected {
            queued: lane.queued.len(),
            demand: lane.demand,
            min_idle: lane.min_idle,
            provisioning: lane.provisioning,
            starting: lane.starting,
            idle: lane.idle,
            busy: lane.busy,
        };
        assert_eq!(kept, expected, "{key:?}");
        let preemptible = expected.idle.saturating_sub(expected.queued + expected.min_idle);
        pool_counts[key.0].preemptible += preemptible;
        if preemptible > 0 {
            assert!(state.preemptible[key.0].contains(&key.1), "{key:?}");
            with_preemptible[key.0] += 1;
        }
        counts.preemptible += preemptible;
        let unused = expected.provisioning + expected.starting + expected.idle;
        if expected.demand + expected.min_idle > unused {
            let oldest = lane.queued.first().map_or(Instant::MAX, |(since, _)| *since);
            assert!(state.in_deficit[key.0].contains(&(oldest, key.1.clone())), "{key:?}");
            in_deficit[key.0] += 1;
        }
    }
    for (kept, expected) in state.in_deficit.iter().zip(in_deficit) {
        assert_eq!(kept.len(), expected, "{kept:?}");
    }
    for (kept, expected) in state.preemptible.iter().zip(with_preemptible) {
        assert_eq!(kept.len(), expected, "{kept:?}");
    }
    assert_eq!(state.counts, counts);
    assert_eq!(state.pool_counts, pool_counts);
}

/// Without the preemptible ones, which also depend on jobs.
fn runners<'a>(state: &'a State, lanes: &mut Lanes<'a>) -> (Counts, Vec<PoolCounts>) {
    let mut counts = Counts::default();
    let mut pool_counts = vec![PoolCounts::default(); state.settings.pools.len()];
    let mut provisioning_with = vec![0; state.settings.credentials.len()];
    let mut provisioning_at = vec![0; state.settings.providers.len()];
    let mut deadlines = 0;
    for (name, runner) in &state.runners {
        assert_eq!(*name, runner.name);
        match runner.deadline {
            Some(at) => {
                assert!(state.deadlines.contains(&(at, name.clone())), "{runner:?}");
                deadlines += 1;
            }
            None => {
                assert!(matches!(runner.phase, Phase::Removing(_)), "no limit ends it: {runner:?}");
            }
        }
        // Runners of removed pools count globally, but in no lane.
        let mut nowhere = (PoolCounts::default(), Expected::default());
        let (pool, lane) = match &runner.lane {
            Some(key) if matches!(runner.phase, Phase::Removing(_)) => {
                (&mut pool_counts[key.0], &mut nowhere.1)
            }
            Some(key) => (&mut pool_counts[key.0], lanes.entry(key).or_default()),
            None => (&mut nowhere.0, &mut nowhere.1),
        };
        if !matches!(&runner.phase, Phase::Removing(removing) if removing.stopped) {
            counts.live += 1;
            pool.live += 1;
            let removing = usize::from(matches!(runner.phase, Phase::Removing(_)));
            counts.removing += removing;
            pool.removing += removing;
        }
        match runner.phase {
            Phase::Provisioning(stage) => {
                counts.provisioning += 1;
                counts.pulling += usize::from(stage == Stage::Image);
                pool.provisioning += 1;
                lane.provisioning += 1;
                let credential = credential_for(&state.settings.credentials, &runner.target);
                if let Some(credential) = credential.filter(|_| runner.lane.is_some()) {
                    provisioning_with[credential] += 1;
                }
                if let Some((pool, _)) = &runner.lane {
                    provisioning_at[state.pool(*pool).provider] += 1;
                }
            }
            Phase::Starting => {
                counts.starting += 1;
                pool.starting += 1;
                lane.starting += 1;
            }
            Phase::Idle => {
                counts.idle += 1;
                lane.idle += 1;
            }
            Phase::Busy => lane.busy += 1,
            Phase::Removing(_) => {}
        }
    }
    assert_eq!(state.provisioning_with, provisioning_with);
    assert_eq!(state.provisioning_at, provisioning_at);
    assert_eq!(state.deadlines.len(), deadlines);
    (counts, pool_counts)
}

#[derive(Default)]
struct Repository<'a> {
    running: usize,
    queued: HashMap<&'a LaneKey, usize>,
}

fn jobs<'a>(state: &'a State, lanes: &mut Lanes<'a>) {
    let mut in_progress = 0;
    let mut repositories: HashMap<(Host, String), Repository<'_>> = HashMap::new();
    for (key, tracked) in &state.jobs {
        if tracked.state == JobState::InProgress {
            assert!(state.in_progress.contains(&(tracked.since, *key)), "{key}");
            in_progress += 1;
        }
        let Ok(lane) = &tracked.lane else { continue };
        let name = (key.host, tracked.job.repository.clone());
        let repository = repositories.entry(name).or_default();
        match tracked.state {
            JobState::Queued => {
                let kept = &state.lanes[lane].queued;
                assert!(kept.contains(&(tracked.since, *key)), "{key}");
                lanes.entry(lane).or_default().queued += 1;
                *repository.queued.entry(lane).or_default() += 1;
            }
            JobState::InProgress => repository.running += 1,
            JobState::Completed => panic!("{key} is over and tracked"),
        }
    }
    assert_eq!(state.in_progress.len(), in_progress);
    assert_eq!(state.tombstones.len(), state.tombstones_by_age.len());

    assert_eq!(state.repositories.len(), repositories.len());
    for (name, expected) in repositories {
        let kept = &state.repositories[&name];
        let (_, name) = name;
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
            lanes.entry(key).or_default().demand += share.allowed;
        }
    }
}
