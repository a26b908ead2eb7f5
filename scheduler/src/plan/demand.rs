//! How many runners are wanted where, launching them, and making room for them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_set},
};

use super::{
    Action, EndReason, LaneKey, Launch, LifeLimits, Phase, Runner, Settings, Stage, State,
    backoff::{Blocked, Gate},
    credential::credential_for,
};
use crate::model::{JobKey, Target, UnixMs};

/// Launches in flight that wait for GitHub or Docker, and of one pool also for
/// its image. Whoever launches works off a few at a time; those behind would
/// use up their time limit in a queue.
pub(super) const LAUNCHING_MAX: usize = 64;
/// Whoever launches keeps the limit; this long after it we stop waiting for word.
const PROVISIONING_MARGIN_MS: u64 = 10_000;

/// The runners and queued jobs of one pool at one target.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What its runners are registered with, if anything.
    pub(super) credential: Option<usize>,
    pub(super) queued: BTreeSet<(UnixMs, JobKey)>,
    /// Queued jobs that may run now, as far as their repositories are concerned.
    pub(super) demand: usize,
    pub(super) min_idle: usize,
    pub(super) provisioning: usize,
    pub(super) starting: usize,
    pub(super) idle: usize,
    pub(super) busy: usize,
    /// A runner ended well without news of a job: one of the jobs that were queued then
    /// may be done.
    pub(super) unexplained_exit: Option<UnixMs>,
    /// Idle runners beyond all that may be asked of them here, jobs included that are
    /// not to run yet: GitHub gives them those all the same.
    preemptible: usize,
    /// Its place in [`State::wanting`].
    pub(super) wanting: Option<UnixMs>,
}

impl Lane {
    /// Runners that have no job yet.
    pub(super) fn unused(&self) -> usize {
        self.provisioning + self.starting + self.idle
    }

    /// `queued + min_idle - starting - idle`: runners to launch, capacity aside.
    pub(super) fn deficit(&self) -> usize {
        (self.demand + self.min_idle).saturating_sub(self.unused())
    }

    /// Those of them that jobs wait for.
    fn awaited(&self) -> usize {
        self.demand.saturating_sub(self.unused())
    }

    fn surplus(&self) -> bool {
        self.unused() > self.demand + self.min_idle
    }

    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.min_idle == 0 && self.unused() + self.busy == 0
    }
}

/// The jobs of one repository, which share `max_per_repository`.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) running: usize,
    /// By the priority of their pools.
    pub(super) waiting: BTreeMap<(Reverse<i32>, LaneKey), Share>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) queued: usize,
    /// Those of them that may run now.
    pub(super) allowed: usize,
}

/// Runners of one pool, at all targets together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) live: usize,
    /// Of those, the ones that are being removed.
    pub(super) leaving: usize,
    pub(super) provisioning: usize,
    pub(super) starting: usize,
    /// Idle ones that could go.
    pub(super) preemptible: usize,
}

/// Runners of all pools together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) live: usize,
    pub(super) leaving: usize,
    pub(super) provisioning: usize,
    /// Of those, the ones that wait for their image.
    pub(super) pulling: usize,
    pub(super) starting: usize,
    pub(super) idle: usize,
    pub(super) preemptible: usize,
}

impl State {
    /// Changes the queued jobs of a repository at a lane, and with them who may run.
    pub(super) fn queue_changed(&mut self, repository: &str, key: &LaneKey, added: bool) {
        let place = (Reverse(self.pool(key.0).priority), key.clone());
        let found = self.repositories.entry(repository.to_owned()).or_default();
        step(&mut found.waiting.entry(place).or_default().queued, added);
        self.share_out(repository);
        // Whose turn it is may have changed, even if how many are wanted has not.
        self.update_wanting(key);
    }

    pub(super) fn running_changed(&mut self, repository: &str, added: bool) {
        let found = self.repositories.entry(repository.to_owned()).or_default();
        step(&mut found.running, added);
        self.share_out(repository);
    }

    /// Shares what a repository may still run among the lanes its jobs wait at.
    fn share_out(&mut self, name: &str) {
        let Some(repository) = self.repositories.get_mut(name) else {
            return;
        };
        let mut left = self.settings.max_per_repository.saturating_sub(repository.running);
        let mut changed = Vec::new();
        let lanes = &mut self.lanes;
        repository.waiting.retain(|(_, key), share| {
            let allowed = share.queued.min(left);
            left -= allowed;
            if allowed != share.allowed {
                let lane = group_at(lanes, &self.settings, key);
                lane.demand = lane.demand + allowed - share.allowed;
                share.allowed = allowed;
                changed.push(key.clone());
            }
            share.queued > 0
        });
        if repository.running == 0 && repository.waiting.is_empty() {
            self.repositories.remove(name);
        }
        for key in changed {
            self.update_wanting(&key);
        }
    }

    /// What is too many then goes by its time for being idle.
    pub(super) fn set_min_idle(&mut self, pool: usize, min_idle: usize) {
        self.settings.pools[pool].min_idle = min_idle;
        for target in self.pool(pool).targets_known_beforehand() {
            let key = (pool, target);
            group_at(&mut self.lanes, &self.settings, &key).min_idle = min_idle;
            self.update_wanting(&key);
        }
    }

    pub(super) fn surplus(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_none_or(Lane::surplus)
    }

    /// To be called after every change of a lane.
    pub(super) fn update_wanting(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let preemptible = lane.idle.saturating_sub(lane.queued.len() + lane.min_idle);
        let before = std::mem::replace(&mut lane.preemptible, preemptible);
        if preemptible != before {
            let pool = &mut self.pool_counts[key.0];
            pool.preemptible = pool.preemptible + preemptible - before;
            self.counts.preemptible = self.counts.preemptible + preemptible - before;
            match preemptible {
                0 => drop(self.preemptible[key.0].remove(&key.1)),
                _ => drop(self.preemptible[key.0].insert(key.1.clone())),
            }
        }
        let oldest = || lane.queued.first().map_or(UnixMs::MAX, |(at, _)| *at);
        let place = (lane.deficit() > 0).then(oldest);
        let old = std::mem::replace(&mut lane.wanting, place);
        if lane.is_empty() {
            self.lanes.remove(key);
        }
        if old == place {
            return;
        }
        let (pool, target) = key;
        if let Some(old) = old {
            self.wanting[*pool].remove(&(old, target.clone()));
        }
        if let Some(new) = place {
            self.wanting[*pool].insert((new, target.clone()));
        }
    }

    /// The one place where the sums follow a runner's phase.
    pub(super) fn count(&mut self, lane: Option<&LaneKey>, phase: &Phase, add: bool) {
        let leaving = matches!(phase, Phase::Removing(_));
        if phase.may_run() {
            step(&mut self.counts.live, add);
            if leaving {
                step(&mut self.counts.leaving, add);
            }
        }
        match phase {
            Phase::Provisioning(stage) => {
                step(&mut self.counts.provisioning, add);
                if *stage == Stage::Image {
                    step(&mut self.counts.pulling, add);
                }
            }
            Phase::Starting => step(&mut self.counts.starting, add),
            Phase::Idle => step(&mut self.counts.idle, add),
            Phase::Busy | Phase::Removing(_) => {}
        }
        let Some(key) = lane else { return };
        let pool = &mut self.pool_counts[key.0];
        if phase.may_run() {
            step(&mut pool.live, add);
            if leaving {
                step(&mut pool.leaving, add);
            }
        }
        if leaving {
            return;
        }
        let entry = group_at(&mut self.lanes, &self.settings, key);
        match phase {
            Phase::Provisioning(_) => {
                step(&mut pool.provisioning, add);
                step(&mut entry.provisioning, add);
                if let Some(credential) = entry.credential {
                    step(&mut self.provisioning_with[credential], add);
                }
            }
            Phase::Starting => {
                step(&mut pool.starting, add);
                step(&mut entry.starting, add);
            }
            Phase::Idle => step(&mut entry.idle, add),
            Phase::Busy => step(&mut entry.busy, add),
            Phase::Removing(_) => {}
        }
        self.update_wanting(key);
    }

    // Launching

    pub(super) fn launch_what_is_missing(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        for (key, count) in self.missing(Places::Free, now) {
            let mut prompts = self.prompts(&key, count).into_iter();
            for _ in 0..count {
                self.launch(&key, prompts.next(), now, actions);
            }
        }
    }

    /// Sends idle runners away that nobody has a use for where they are, as many as hold
    /// places that jobs elsewhere wait for.
    pub(super) fn preempt(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if self.counts.preemptible == 0 {
            return;
        }
        let mut wanted = vec![0; self.settings.pools.len()];
        for (key, count) in self.missing(Places::SpareToo, now) {
            wanted[key.0] += count;
        }
        let in_all: usize = wanted.iter().sum();
        if in_all == 0 {
            return;
        }
        let counts = &self.counts;
        let lacking = (in_all + counts.live - counts.leaving).saturating_sub(self.settings.max);
        let lacking_in: Vec<usize> = wanted
            .into_iter()
            .zip(self.settings.pools.iter().zip(&self.pool_counts))
            .map(|(wanted, (pool, counts))| match wanted {
                0 => 0,
                _ => (wanted + counts.live - counts.leaving).saturating_sub(pool.max),
            })
            .collect();
        let lacking_elsewhere = lacking.saturating_sub(lacking_in.iter().sum());
        for name in self.spared(lacking_in, lacking_elsewhere) {
            self.leave(&name, EndReason::Preempted, false, now, actions);
        }
    }

    /// Idle runners to preemptible: so many of each pool, and so many more of any.
    fn spared(&self, mut of_pool: Vec<usize>, mut of_any: usize) -> Vec<String> {
        let mut of_group: BTreeMap<(usize, &Target), usize> = BTreeMap::new();
        for pool in self.pools_by_priority.iter().rev().flatten() {
            for target in &self.preemptible[*pool] {
                let count = self.spare_at(&(*pool, target.clone())).min(of_pool[*pool] + of_any);
                let own = count.min(of_pool[*pool]);
                of_pool[*pool] -= own;
                of_any -= count - own;
                if count == 0 {
                    break;
                }
                of_group.insert((*pool, target), count);
            }
        }
        if of_group.is_empty() {
            return Vec::new();
        }
        let mut idle: Vec<(UnixMs, &str, (usize, &Target))> = Vec::new();
        for runner in self.runners.values().filter(|runner| runner.phase == Phase::Idle) {
            if let Some((pool, target)) = &runner.lane
                && of_group.contains_key(&(*pool, target))
            {
                idle.push((runner.since, &runner.name, (*pool, target)));
            }
        }
        // Those go that have been idle longest.
        idle.sort_unstable();
        idle.retain(|(_, _, lane)| {
            let left = of_group.get_mut(lane).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        });
        idle.into_iter().map(|(_, name, _)| name.to_owned()).collect()
    }

    fn spare_at(&self, key: &LaneKey) -> usize {
        self.lanes.get(key).map_or(0, |lane| lane.preemptible)
    }

    /// What to launch now: the highest priority first, then who waits longest.
    fn missing(&self, places: Places, now: UnixMs) -> Vec<(LaneKey, usize)> {
        let mut missing = Vec::new();
        let mut room = self.room(places, now);
        let mut room_with = self.room_with_credentials(now);
        for class in &self.pools_by_priority {
            let mut queues: Vec<Queue<'_>> = class
                .iter()
                .filter(|pool| room > 0 && !self.wanting[**pool].is_empty())
                .map(|pool| Queue {
                    pool: *pool,
                    room: self.room_in_pool(*pool, places, now),
                    rest: self.wanting[*pool].iter(),
                    head: None,
                })
                .filter(|queue| queue.room > 0)
                .collect();
            for queue in &mut queues {
                queue.head = queue.rest.next();
            }
            while room > 0 {
                let next = queues
                    .iter_mut()
                    .filter(|queue| queue.room > 0)
                    .filter_map(|queue| Some((queue.head?, queue)))
                    .min_by_key(|(head, queue)| (head.0, queue.pool));
                let Some(((_, target), queue)) = next else {
                    break;
                };
                let key = (queue.pool, target.clone());
                queue.head = queue.rest.next();
                // Without a credential nothing can be launched there.
                let Some(room_with) = self.credential_at(&key).map(|it| &mut room_with[it]) else {
                    continue;
                };
                let most = queue.room.min(room).min(*room_with);
                let count =
                    if most == 0 { 0 } else { self.missing_at(&key, places, now).min(most) };
                queue.room -= count;
                room -= count;
                *room_with -= count;
                if count > 0 {
                    missing.push((key, count));
                }
            }
        }
        missing
    }

    /// How many may be launched in all.
    fn room(&self, places: Places, now: UnixMs) -> usize {
        if !self.recovered || self.draining {
            return 0;
        }
        let Counts { live, leaving, preemptible, provisioning, pulling, .. } = self.counts;
        let in_hand = provisioning - pulling;
        self.settings
            .max
            .saturating_sub(places.taken(live, leaving, preemptible))
            .min(LAUNCHING_MAX.saturating_sub(in_hand))
            .min(let_through(&self.backoffs.gate_for_all(now), provisioning))
    }

    /// How many may be launched with each credential.
    fn room_with_credentials(&self, now: UnixMs) -> Vec<usize> {
        self.provisioning_with
            .iter()
            .enumerate()
            .map(|(credential, provisioning)| {
                let gate = self.backoffs.gate_for(Blocked::GitHub(credential), now);
                let_through(&gate, *provisioning)
            })
            .collect()
    }

    /// What a lane's runners are registered with.
    pub(super) fn credential_at(&self, key: &LaneKey) -> Option<usize> {
        self.lanes.get(key).and_then(|lane| lane.credential)
    }

    fn room_in_pool(&self, pool: usize, places: Places, now: UnixMs) -> usize {
        if self.pool_draining(pool) {
            return 0;
        }
        let counts = &self.pool_counts[pool];
        self.pool(pool)
            .max
            .saturating_sub(places.taken(counts.live, counts.leaving, counts.preemptible))
            .min(LAUNCHING_MAX.saturating_sub(counts.provisioning))
            // Whether its image works is known when a runner is online.
            .min(let_through(
                &self.backoffs.gate_for(Blocked::Pool(pool), now),
                counts.provisioning + counts.starting,
            ))
    }

    fn missing_at(&self, key: &LaneKey, places: Places, now: UnixMs) -> usize {
        let Some(lane) = self.lanes.get(key) else {
            return 0;
        };
        let gate = self.backoffs.gate_for_lane(key, now);
        let missing = match places {
            Places::Free => lane.deficit(),
            Places::SpareToo => lane.awaited(),
        };
        missing.min(let_through(&gate, lane.provisioning))
    }

    /// Deliveries of the jobs that have no runner on its way yet.
    fn prompts(&self, key: &LaneKey, count: usize) -> Vec<String> {
        let Some(lane) = self.lanes.get(key) else {
            return Vec::new();
        };
        let unserved = lane.queued.iter().skip(lane.unused()).take(count);
        unserved
            .filter_map(|(_, job)| self.jobs.get(job))
            .map(|tracked| tracked.job.delivery.clone())
            .collect()
    }

    fn launch(
        &mut self,
        key: &LaneKey,
        prompted_by: Option<String>,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let pool_name = self.pool(key.0).name.clone();
        let name = loop {
            let number = self.random.next() >> 16;
            let name = format!("{}-{pool_name}-{number:012x}", self.settings.instance);
            if !self.runners.contains_key(&name) {
                break name;
            }
        };
        let runner = Runner {
            name: name.clone(),
            pool: pool_name,
            target: key.1.clone(),
            lane: Some(key.clone()),
            phase: Phase::Provisioning(Stage::Accepted),
            created_at: now,
            since: now,
            registration_id: None,
            job: None,
            finished: false,
            deadline: None,
        };
        let LifeLimits { provisioning_ms, .. } = self.pool(key.0).limits;
        let deadline = now.saturating_add(provisioning_ms).saturating_add(PROVISIONING_MARGIN_MS);
        self.insert_runner(runner);
        self.set_deadline(&name, Some(deadline));
        let (pool, target) = key.clone();
        actions.push(Action::Launch(Launch { runner: name, pool, target, prompted_by }));
    }
}

/// The lane, made if it is not there.
pub(super) fn group_at<'a>(
    lanes: &'a mut BTreeMap<LaneKey, Lane>,
    settings: &Settings,
    key: &LaneKey,
) -> &'a mut Lane {
    lanes.entry(key.clone()).or_insert_with(|| Lane {
        credential: credential_for(&settings.credentials, &key.1),
        ..Lane::default()
    })
}

/// Which places count when it is asked what to launch.
#[derive(Clone, Copy)]
enum Places {
    Free,
    /// Also those that are about to be free, and those of spare runners; for jobs only,
    /// since no runner need go for one that is to be kept idle.
    SpareToo,
}

impl Places {
    fn taken(self, live: usize, leaving: usize, preemptible: usize) -> usize {
        match self {
            Self::Free => live,
            Self::SpareToo => live - leaving - preemptible,
        }
    }
}

/// The lanes of one pool that want runners, in their order.
struct Queue<'a> {
    pool: usize,
    room: usize,
    rest: btree_set::Iter<'a, (UnixMs, Target)>,
    head: Option<&'a (UnixMs, Target)>,
}

/// How many launches a gate lets through while `under_way` may still tell whether
/// the cause is over.
fn let_through(gate: &Gate<'_>, under_way: usize) -> usize {
    match gate {
        Gate::Open => usize::MAX,
        Gate::OneAtATime(..) => usize::from(under_way == 0),
        Gate::Closed(..) => 0,
    }
}

fn step(count: &mut usize, add: bool) {
    *count = if add { *count + 1 } else { *count - 1 };
}
