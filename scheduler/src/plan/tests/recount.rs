//! Recounts, from jobs and runners, every sum that the state keeps.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use super::super::{
    LaneKey, Order, Phase, Stage, State,
    demand::{Counts, PoolCounts},
    host_for_name,
    machine::Held,
    order::Place,
};
use crate::model::{Host, Instant, JobKey, JobState, ServerTarget, Target};

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    queued: usize,
    held: usize,
    demand: usize,
    probes: usize,
    min_idle: usize,
    parked_wanted: usize,
    parking: usize,
    parked: usize,
    provisioning: usize,
    without_room: usize,
    provisioning_with: BTreeMap<usize, usize>,
    starting: usize,
    idle: usize,
    busy: usize,
    unreachable_starting: usize,
    unreachable_idle: usize,
}

type Lanes<'a> = BTreeMap<&'a LaneKey, Expected>;

pub(super) fn recount(state: &State) {
    let mut lanes = Lanes::new();
    let warm: Vec<LaneKey> = state
        .settings
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.min_idle + pool.parked > 0)
        .flat_map(|(index, pool)| {
            let on_its_server = |target: Target| {
                let host = host_for_name(&state.settings.credentials, &target);
                target.on(host)
            };
            let targets = pool.known_targets().into_iter();
            targets.map(move |target| LaneKey::plain(index, on_its_server(target)))
        })
        .collect();
    for key in &warm {
        let lane = lanes.entry(key).or_default();
        lane.min_idle = state.pool(key.pool).min_idle;
        lane.parked_wanted = state.pool(key.pool).parked;
    }
    let (mut counts, mut pool_counts) = runners(state, &mut lanes);
    jobs(state, &mut lanes);

    let mut expected_at: HashMap<&ServerTarget, usize> = HashMap::new();
    for (key, Expected { provisioning, starting, idle, busy, .. }) in &lanes {
        *expected_at.entry(&key.target).or_default() += provisioning + starting + idle + busy;
    }
    let mut in_deficit = vec![0; state.settings.pools.len()];
    let mut with_preemptible = in_deficit.clone();
    assert_eq!(state.lanes.len(), lanes.len(), "{:?} for {lanes:?}", state.lanes);
    for (key, expected) in lanes {
        let lane = &state.lanes[key];
        let kept = Expected {
            queued: lane.queued.len(),
            held: lane.held.len(),
            demand: lane.demand,
            probes: lane.probes,
            min_idle: lane.min_idle,
            parked_wanted: lane.parked_wanted,
            parking: lane.parking,
            parked: lane.parked,
            provisioning: lane.provisioning,
            without_room: lane.without_room,
            provisioning_with: lane.provisioning_with.clone(),
            starting: lane.starting,
            idle: lane.idle,
            busy: lane.busy,
            unreachable_starting: lane.unreachable_starting,
            unreachable_idle: lane.unreachable_idle,
        };
        assert_eq!(kept, expected, "{key:?}");
        let probing = if expected.held > 0 { expected.starting } else { 0 };
        let preemptible =
            (expected.idle + probing).saturating_sub(expected.queued + expected.min_idle);
        pool_counts[key.pool].preemptible += preemptible;
        if preemptible > 0 {
            assert!(state.preemptible[key.pool].contains(key), "{key:?}");
            with_preemptible[key.pool] += 1;
        }
        counts.preemptible += preemptible;
        let unused = expected.provisioning + expected.starting + expected.idle;
        let needless = unused > expected.queued + expected.probes + expected.min_idle
            && expected.without_room > 0;
        assert_eq!(state.needless.contains(key), needless, "{key:?}");
        let there = expected.parking + expected.parked;
        assert_eq!(state.to_park.contains(key), there < expected.parked_wanted, "{key:?}");
        let too_many = there > expected.parked_wanted && expected.parked > 0;
        assert_eq!(state.overparked.contains(key), too_many, "{key:?}");
        if expected.demand + expected.probes + expected.min_idle > unused {
            let at_target = expected_at.get(&key.target).copied().unwrap_or_default();
            let place = Place {
                without_job: expected.demand <= unused,
                runners: if state.settings.order == Order::Fair { at_target } else { 0 },
                oldest: lane.queued.first().map_or(Instant::MAX, |(since, _)| *since),
            };
            assert!(state.in_deficit[key.pool].contains(&(place, key.clone())), "{key:?}");
            in_deficit[key.pool] += 1;
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
    let mut held = vec![Held::default(); state.settings.providers.len()];
    let mut deadlines = 0;
    let mut unreachable = 0;
    for (name, runner) in &state.runners {
        assert_eq!(*name, runner.name);
        match runner.deadline {
            Some(at) => {
                assert!(state.deadlines.contains(&(at, name.clone())), "{runner:?}");
                deadlines += 1;
            }
            None => panic!("no limit ends it: {runner:?}"),
        }
        assert_eq!(runner.no_room.is_some(), runner.phase.waits_for_room(), "{runner:?}");
        unreachable += usize::from(runner.unreachable.is_some());
        // Runners of removed pools count globally, but in no lane.
        let mut nowhere = (PoolCounts::default(), Expected::default());
        let (pool, lane) = match &runner.lane {
            Some(key) if matches!(runner.phase, Phase::Removing(_)) => {
                (&mut pool_counts[key.pool], &mut nowhere.1)
            }
            Some(key) => (&mut pool_counts[key.pool], lanes.entry(key).or_default()),
            None => (&mut nowhere.0, &mut nowhere.1),
        };
        let takes_a_place = match &runner.phase {
            Phase::Parking(_) | Phase::Parked { .. } => false,
            Phase::Removing(removing) => !removing.stopped && !removing.parked,
            _ => true,
        };
        if takes_a_place {
            counts.live += 1;
            pool.live += 1;
            let held = &mut held[runner.provider];
            held.all = held.all.plus(runner.promised);
            if matches!(runner.phase, Phase::Removing(_)) {
                held.removing = held.removing.plus(runner.promised);
            }
            let removing = usize::from(matches!(runner.phase, Phase::Removing(_)));
            counts.removing += removing;
            pool.removing += removing;
        }
        match runner.phase {
            Phase::Provisioning(stage) => {
                counts.provisioning += 1;
                counts.pulling += usize::from(stage == Stage::Image);
                let waits = usize::from(stage == Stage::Room);
                counts.without_room += waits;
                pool.without_room += waits;
                lane.without_room += waits;
                pool.provisioning += 1;
                lane.provisioning += 1;
                if waits == 1 {
                    continue;
                }
                if let Some(credential) = runner.credential.filter(|_| runner.lane.is_some()) {
                    provisioning_with[credential] += 1;
                    *lane.provisioning_with.entry(credential).or_default() += 1;
                }
                if let Some(lane) = &runner.lane {
                    provisioning_at[state.pool(lane.pool).provider] += 1;
                }
            }
            Phase::Parking(_) => {
                counts.parking += 1;
                lane.parking += 1;
            }
            Phase::Parked { .. } => {
                counts.parked += 1;
                lane.parked += 1;
            }
            Phase::Starting => {
                counts.starting += 1;
                pool.starting += 1;
                lane.starting += 1;
                lane.unreachable_starting += usize::from(runner.unreachable.is_some());
            }
            Phase::Idle => {
                counts.idle += 1;
                lane.idle += 1;
                lane.unreachable_idle += usize::from(runner.unreachable.is_some());
            }
            Phase::Busy => lane.busy += 1,
            Phase::Removing(_) => {}
        }
    }
    assert_eq!(state.provisioning_with, provisioning_with);
    assert_eq!(state.provisioning_at, provisioning_at);
    assert_eq!(state.held, held);
    assert_eq!(state.deadlines.len(), deadlines);
    assert_eq!(state.unreachable.count, unreachable);
    for (counts, lack) in pool_counts.iter().zip(&state.lack_room) {
        assert!(counts.without_room == 0 || lack.is_some());
    }
    (counts, pool_counts)
}

#[derive(Default)]
struct Repository<'a> {
    running: usize,
    queued: HashMap<&'a LaneKey, usize>,
    held: HashMap<&'a LaneKey, usize>,
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
                let (kept, entry) = (&state.lanes[lane], (tracked.since, *key));
                assert_ne!(kept.queued.contains(&entry), kept.held.contains(&entry), "{key}");
                let listed = kept.movable.get(&tracked.candidates);
                assert_eq!(
                    listed.is_some_and(|jobs| jobs.contains(&entry)),
                    kept.queued.contains(&entry) && !tracked.candidates.is_empty(),
                    "{key}"
                );
                let expected = lanes.entry(lane).or_default();
                if kept.held.contains(&entry) {
                    expected.held += 1;
                    *repository.held.entry(lane).or_default() += 1;
                } else {
                    expected.queued += 1;
                    *repository.queued.entry(lane).or_default() += 1;
                }
            }
            JobState::InProgress => repository.running += 1,
            JobState::Completed => panic!("{key} is over and tracked"),
        }
    }
    assert_eq!(state.in_progress.len(), in_progress);
    let look_ups = &state.job_look_ups;
    let tracked = state.jobs.iter().map(|(key, tracked)| (tracked.look_up_due, *key));
    let unconfirmed = look_ups.unconfirmed.iter().map(|(key, it)| (it.due, *key));
    let due: BTreeSet<(Instant, JobKey)> = tracked.chain(unconfirmed).collect();
    assert_eq!(look_ups.due, due, "every job that is not over is looked up in the end, once");
    assert_eq!(state.tombstones.len(), state.tombstones_by_age.len());

    let mut paused = 0;
    assert_eq!(state.repositories.len(), repositories.len());
    for (name, expected) in repositories {
        let kept = &state.repositories[&name];
        let (_, name) = name;
        assert_eq!(kept.running, expected.running, "{name}");
        let lanes_of: BTreeSet<_> = expected.queued.keys().chain(expected.held.keys()).collect();
        assert_eq!(kept.waiting.len(), lanes_of.len(), "{name}");
        let free = state.settings.max_per_repository.saturating_sub(expected.running);
        let shares = kept.waiting.values();
        let allowed: usize = shares.clone().map(|share| share.allowed + share.probes).sum();
        let wanted: usize = shares.map(|share| share.wanted() + share.probes_wanted()).sum();
        assert_eq!(allowed, wanted.min(free), "{name}");
        for ((Reverse(priority), key), share) in &kept.waiting {
            assert_eq!(*priority, state.pool(key.pool).priority);
            let count = |of: &HashMap<&LaneKey, usize>| of.get(key).copied().unwrap_or_default();
            assert_eq!(share.queued, count(&expected.queued), "{name} at {key:?}");
            assert_eq!(share.held, count(&expected.held), "{name} at {key:?}");
            assert_eq!(share.probing.is_some(), share.held > 0, "{name} at {key:?}");
            assert_eq!(state.lanes[key].held_by.contains(&name), share.held > 0, "{name}");
            assert!(share.allowed <= share.queued && share.probes <= share.held);
            lanes.entry(key).or_default().demand += share.allowed;
            lanes.entry(key).or_default().probes += share.probes;
            paused += usize::from(share.held_until().is_some());
        }
    }
    assert_eq!(state.probes_due.len(), paused);
    for (key, lane) in &state.lanes {
        assert_eq!(state.movable.contains(key), !lane.movable.is_empty(), "{key:?}");
    }
    assert!(state.movable.iter().all(|key| state.lanes.contains_key(key)));
}
