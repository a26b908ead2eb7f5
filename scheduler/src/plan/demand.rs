//! Demand: how many runners each lane wants, and the sums over lanes, pools and repositories.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    LaneKey, Phase, Settings, Stage, State,
    backoff::{Dependencies, Gate},
    credential::{credentials_for, host_for_name},
    held::Probing,
    order::Place,
    spill::Candidates,
};
use crate::model::{Host, Instant, Job, JobKey, ServerTarget};

/// The runners and queued jobs of one pool at one target. See [`LaneKey`].
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those that register its runners. Empty: no credential serves the target.
    pub(super) credentials: Vec<usize>,
    /// Launches in flight with each credential, unless there are none.
    pub(super) provisioning_with: BTreeMap<usize, usize>,
    /// Oldest first, without those that are held back.
    pub(super) queued: BTreeSet<(Instant, JobKey)>,
    /// Those of `queued` that another lane could serve as well.
    pub(super) movable: BTreeMap<Candidates, BTreeSet<(Instant, JobKey)>>,
    /// Queued jobs that GitHub holds back.
    pub(super) held: BTreeSet<(Instant, JobKey)>,
    /// The repositories of those.
    pub(super) held_by: BTreeSet<String>,
    /// Queued jobs that may run within the limits of their repositories.
    pub(super) demand: usize,
    /// Jobs that are held back and may launch a runner as a probe.
    pub(super) probes: usize,
    pub(super) min_idle: usize,
    /// Runners to keep parked.
    pub(super) parked_wanted: usize,
    /// Launches in flight of runners that are to be parked.
    pub(super) parking: usize,
    pub(super) parked: usize,
    pub(super) provisioning: usize,
    /// Those of `provisioning` that wait for room.
    pub(super) without_room: usize,
    pub(super) starting: usize,
    pub(super) idle: usize,
    pub(super) busy: usize,
    /// Those of `starting` and of `idle` that are unreachable.
    pub(super) unreachable_starting: usize,
    pub(super) unreachable_idle: usize,
    /// When a runner last exited with code 0 without an event about a job. It may have run one
    /// of the jobs that were queued then.
    pub(super) unexplained_exit: Option<Instant>,
    /// When jobs started whose runner GitHub did not name, and which none of the lane's runners
    /// is known to have run. At most one for each runner that may have.
    pub(super) unnamed_jobs: VecDeque<Instant>,
    /// When its runners were last looked up: one of them may run the last of those jobs.
    pub(super) unnamed_look_up: Option<Instant>,
    /// When jobs were last looked for that GitHub holds back.
    pub(super) passed_over: Option<Instant>,
    /// When a runner was last assigned a job.
    pub(super) picked_up: Option<Instant>,
    /// When its runners were last looked up, if any was parked.
    pub(super) parked_look_up: Option<Instant>,
    /// Between look-ups of its idle runners.
    pub(super) runner_look_ups: GrowingPause,
    /// Between look-ups of its queued jobs.
    pub(super) job_look_ups: GrowingPause,
    /// Idle runners that neither a queued job nor `min_idle` needs. Jobs that exceed their
    /// repository's limit count as needing one, since GitHub assigns those regardless. Jobs
    /// that GitHub holds back do not, and their probes are preemptible before they are online.
    pub(super) preemptible: usize,
    /// Its entry in [`State::in_deficit`].
    pub(super) in_deficit: Option<Place>,
}

impl Lane {
    /// Runners without a job.
    pub(super) fn unused(&self) -> usize {
        self.provisioning + self.starting + self.idle
    }

    /// Runners that are launching, or have or may get a job.
    pub(super) fn active(&self) -> usize {
        self.unused() + self.busy
    }

    /// Runners to launch, limits aside.
    pub(super) fn deficit(&self) -> usize {
        (self.demand + self.probes + self.min_idle).saturating_sub(self.unused())
    }

    /// The part of the deficit that jobs wait for, without probes.
    pub(super) fn job_deficit(&self) -> usize {
        self.demand.saturating_sub(self.unused())
    }

    /// The same, as if the launches that wait for room were not there.
    pub(super) fn unserved(&self) -> usize {
        self.demand.saturating_sub(self.unused() - self.without_room)
    }

    /// Launches in flight that do not wait for room.
    pub(super) fn in_flight(&self) -> usize {
        self.provisioning - self.without_room
    }

    /// Launches that wait for room and that nothing needs. As for `preemptible`, jobs that exceed
    /// their repository's limit count as needing one.
    pub(super) fn needless(&self) -> usize {
        let needed = self.queued.len() + self.probes + self.min_idle;
        self.unused().saturating_sub(needed).min(self.without_room)
    }

    fn surplus(&self) -> bool {
        self.unused() > self.demand + self.probes + self.min_idle
    }

    /// Runners without a job that nothing needs, apart from launches that wait for room.
    pub(super) fn spare(&self) -> usize {
        (self.unused() - self.without_room)
            .saturating_sub(self.demand + self.probes + self.min_idle)
    }

    /// Runners that could be preempted if no job and no `min_idle` needed them.
    fn replaceable(&self) -> usize {
        self.idle + if self.held.is_empty() { 0 } else { self.starting }
    }

    /// Whether a job started, GitHub did not name its runner, and the lane's runners were not
    /// looked up since.
    pub(super) fn has_unnamed_job(&self) -> bool {
        let last = self.unnamed_jobs.back();
        last.is_some_and(|at| self.unnamed_look_up.is_none_or(|look_up| look_up < *at))
    }

    /// Takes over what a lane remembers, beyond its jobs and runners.
    pub(super) fn keep_history(&mut self, old: Self) {
        self.unexplained_exit = old.unexplained_exit;
        self.unnamed_jobs = old.unnamed_jobs;
        self.unnamed_look_up = old.unnamed_look_up;
        self.picked_up = old.picked_up;
        self.parked_look_up = old.parked_look_up;
        self.runner_look_ups = old.runner_look_ups;
        self.job_look_ups = old.job_look_ups;
    }

    fn is_empty(&self) -> bool {
        self.queued.is_empty()
            && self.held.is_empty()
            && self.min_idle + self.parked_wanted == 0
            && self.active() + self.parking + self.parked == 0
    }
}

/// A pause between look-ups that doubles until one of them finds something.
#[derive(Debug, Default)]
pub(super) struct GrowingPause {
    until: Option<Instant>,
    pauses: u32,
}

impl GrowingPause {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn begin(&mut self, first: Duration, longest: Duration, now: Instant) {
        self.until = Some(now + (first * (1 << self.pauses.min(10))).min(longest));
        self.pauses = self.pauses.saturating_add(1);
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The jobs of one repository, across all lanes. They share `max_per_repository`.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) running: usize,
    /// In order of their pools' priority.
    pub(super) waiting: BTreeMap<(Reverse<i32>, LaneKey), Share>,
}

/// The queued jobs of one repository in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Without those that are held back.
    pub(super) queued: usize,
    /// Those that GitHub holds back.
    pub(super) held: usize,
    /// Those of `queued` that may run now.
    pub(super) allowed: usize,
    /// Those of `held` that may launch a runner now.
    pub(super) probes: usize,
    /// While any are held back.
    pub(super) probing: Option<Probing>,
}

/// The runners of one pool, at all its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) live: usize,
    /// Those of `live` that are being removed.
    pub(super) removing: usize,
    pub(super) provisioning: usize,
    /// Those of `provisioning` that wait for room.
    pub(super) without_room: usize,
    pub(super) starting: usize,
    /// See [`Lane::preemptible`].
    pub(super) preemptible: usize,
}

/// The runners of all pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Without those that are parked or are to be.
    pub(super) live: usize,
    /// Those of `live` that are being removed.
    pub(super) removing: usize,
    pub(super) provisioning: usize,
    /// Those of `provisioning` that wait for their image.
    pub(super) pulling: usize,
    /// Those of `provisioning` that wait for room.
    pub(super) without_room: usize,
    pub(super) starting: usize,
    pub(super) idle: usize,
    /// Launches in flight of runners that are to be parked.
    pub(super) parking: usize,
    pub(super) parked: usize,
    pub(super) preemptible: usize,
}

impl State {
    /// Counts a queued job of the repository in or out, and divides its limit again.
    pub(super) fn queue_changed(&mut self, repository: &str, key: &LaneKey, added: bool) {
        step(&mut self.share_mut(repository, key).queued, added);
        self.divide_limit(&(key.target.host, repository.to_owned()));
        // The lane's oldest job may have changed, even if its demand has not.
        self.update_lane(key);
    }

    /// Counts out a job that was held back.
    pub(super) fn held_job_left(&mut self, repository: &str, key: &LaneKey) {
        let share = self.share_mut(repository, key);
        step(&mut share.held, false);
        match share.held {
            0 => self.set_probing(repository, key, None),
            _ => self.divide_limit(&(key.target.host, repository.to_owned())),
        }
        self.update_lane(key);
    }

    pub(super) fn share(&self, repository: &str, key: &LaneKey) -> Option<&Share> {
        let rank = (Reverse(self.pool(key.pool).priority), key.clone());
        self.repositories.get(&(key.target.host, repository.to_owned()))?.waiting.get(&rank)
    }

    /// The share, which is created if it does not exist.
    pub(super) fn share_mut(&mut self, repository: &str, key: &LaneKey) -> &mut Share {
        let rank = (Reverse(self.pool(key.pool).priority), key.clone());
        let repository =
            self.repositories.entry((key.target.host, repository.to_owned())).or_default();
        repository.waiting.entry(rank).or_default()
    }

    /// Counts a running job in or out, and divides its repository's limit again.
    pub(super) fn running_changed(&mut self, job: &Job, added: bool) {
        let repository = (job.key.host, job.repository.clone());
        let found = self.repositories.entry(repository.clone()).or_default();
        step(&mut found.running, added);
        self.divide_limit(&repository);
    }

    /// Divides what a repository may still run among the lanes in which its jobs wait.
    pub(super) fn divide_limit(&mut self, name: &(Host, String)) {
        let Some(repository) = self.repositories.get_mut(name) else {
            return;
        };
        let mut left = self.settings.max_per_repository.saturating_sub(repository.running);
        let mut changed = Vec::new();
        let lanes = &mut self.lanes;
        // Probes come after all jobs that GitHub may assign.
        let wanted: usize = repository.waiting.values().map(Share::wanted).sum();
        let mut left_for_probes = left.saturating_sub(wanted);
        repository.waiting.retain(|(_, key), share| {
            let allowed = share.wanted().min(left);
            left -= allowed;
            let probes = share.probes_wanted().min(left_for_probes);
            left_for_probes -= probes;
            if (allowed, probes) != (share.allowed, share.probes) {
                let lane = lane_at(lanes, &self.settings, key);
                lane.demand = lane.demand + allowed - share.allowed;
                lane.probes = lane.probes + probes - share.probes;
                (share.allowed, share.probes) = (allowed, probes);
                changed.push(key.clone());
            }
            share.queued + share.held > 0
        });
        if repository.running == 0 && repository.waiting.is_empty() {
            self.repositories.remove(name);
        }
        for key in changed {
            self.update_lane(&key);
        }
    }

    /// Surplus runners are removed when their idle time is over.
    pub(super) fn set_min_idle(&mut self, pool: usize, min_idle: usize) {
        self.settings.pools[pool].min_idle = min_idle;
        for target in self.pool(pool).known_targets() {
            let host = host_for_name(&self.settings.credentials, &target);
            let key = LaneKey::plain(pool, target.on(host));
            lane_at(&mut self.lanes, &self.settings, &key).min_idle = min_idle;
            self.update_lane(&key);
        }
    }

    pub(super) fn surplus(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_none_or(Lane::surplus)
    }

    /// Must be called after every change of a lane.
    pub(super) fn update_lane(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let preemptible = lane.replaceable().saturating_sub(lane.queued.len() + lane.min_idle);
        let before = std::mem::replace(&mut lane.preemptible, preemptible);
        if preemptible != before {
            let pool = &mut self.pool_counts[key.pool];
            pool.preemptible = pool.preemptible + preemptible - before;
            self.counts.preemptible = self.counts.preemptible + preemptible - before;
            match preemptible {
                0 => drop(self.preemptible[key.pool].remove(key)),
                _ => drop(self.preemptible[key.pool].insert(key.clone())),
            }
        }
        match lane.needless() {
            0 => drop(self.needless.remove(key)),
            _ => drop(self.needless.insert(key.clone())),
        }
        match lane.unparked() {
            0 => drop(self.to_park.remove(key)),
            _ => drop(self.to_park.insert(key.clone())),
        }
        match lane.overparked() {
            0 => drop(self.overparked.remove(key)),
            _ => drop(self.overparked.insert(key.clone())),
        }
        let old = lane.in_deficit;
        let empty = lane.is_empty();
        let new = self.place(key);
        if empty {
            self.lanes.remove(key);
        } else if let Some(lane) = self.lanes.get_mut(key) {
            lane.in_deficit = new;
        }
        if old == new {
            return;
        }
        let in_deficit = &mut self.in_deficit[key.pool];
        if let Some(old) = old {
            in_deficit.remove(&(old, key.clone()));
        }
        if let Some(new) = new {
            in_deficit.insert((new, key.clone()));
        }
    }

    /// Counts a runner in or out of every sum. No other function changes them by phase.
    /// `credential`: the one that it is launched with.
    pub(super) fn count(
        &mut self,
        lane: Option<&LaneKey>,
        credential: Option<usize>,
        phase: &Phase,
        add: bool,
    ) {
        let removing = matches!(phase, Phase::Removing(_));
        if phase.may_run() {
            step(&mut self.counts.live, add);
            if removing {
                step(&mut self.counts.removing, add);
            }
        }
        match phase {
            Phase::Provisioning(stage) => {
                step(&mut self.counts.provisioning, add);
                match stage {
                    Stage::Image => step(&mut self.counts.pulling, add),
                    Stage::Room => step(&mut self.counts.without_room, add),
                    Stage::Accepted | Stage::Credentials | Stage::Container => {}
                }
            }
            Phase::Parking(_) => step(&mut self.counts.parking, add),
            Phase::Parked { .. } => step(&mut self.counts.parked, add),
            Phase::Starting => step(&mut self.counts.starting, add),
            Phase::Idle => step(&mut self.counts.idle, add),
            Phase::Busy | Phase::Removing(_) => {}
        }
        let Some(key) = lane else { return };
        let provider = self.pool(key.pool).provider;
        let pool = &mut self.pool_counts[key.pool];
        if phase.may_run() {
            step(&mut pool.live, add);
            if removing {
                step(&mut pool.removing, add);
            }
        }
        if removing {
            return;
        }
        let entry = lane_at(&mut self.lanes, &self.settings, key);
        match phase {
            // It shows nothing soon, so what lets one launch through at a time ignores it.
            Phase::Provisioning(Stage::Room) => {
                step(&mut pool.provisioning, add);
                step(&mut pool.without_room, add);
                step(&mut entry.provisioning, add);
                step(&mut entry.without_room, add);
            }
            Phase::Provisioning(_) => {
                step(&mut pool.provisioning, add);
                step(&mut entry.provisioning, add);
                step(&mut self.provisioning_at[provider], add);
                if let Some(credential) = credential {
                    step(&mut self.provisioning_with[credential], add);
                    let with = entry.provisioning_with.entry(credential).or_default();
                    step(with, add);
                    if *with == 0 {
                        entry.provisioning_with.remove(&credential);
                    }
                }
            }
            Phase::Parking(_) => step(&mut entry.parking, add),
            Phase::Parked { .. } => step(&mut entry.parked, add),
            Phase::Starting => {
                step(&mut pool.starting, add);
                step(&mut entry.starting, add);
            }
            Phase::Idle => step(&mut entry.idle, add),
            Phase::Busy => step(&mut entry.busy, add),
            Phase::Removing(_) => {}
        }
        self.update_lanes_at(key);
    }

    /// Those of all pools at a target.
    pub(super) fn lanes_at(
        &self,
        target: &ServerTarget,
    ) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        let mut first = LaneKey::plain(0, target.clone());
        (0..self.settings.pools.len()).flat_map(move |pool| {
            first.pool = pool;
            // No parameters come before all others.
            let lanes = self.lanes.range(&first..);
            lanes.take_while(move |(key, _)| key.pool == pool && key.target == *target)
        })
    }

    /// The credentials that register a lane's runners.
    pub(super) fn credentials_at(&self, key: &LaneKey) -> &[usize] {
        self.lanes.get(key).map_or(&[], |lane| &lane.credentials)
    }

    /// What a launch in a lane depends on, with this credential.
    pub(super) fn dependencies<'a>(
        &self,
        lane: &'a LaneKey,
        credential: Option<usize>,
    ) -> Dependencies<'a> {
        let serving = credentials_for(&self.settings.credentials, &lane.target);
        let shared = serving.take(2).count() > 1;
        Dependencies { lane, provider: self.pool(lane.pool).provider, credential, shared }
    }

    /// Whether its own failures pause launches at a target with all its credentials.
    pub(super) fn fails_at(&self, target: &ServerTarget) -> bool {
        let mut serving = credentials_for(&self.settings.credentials, target).peekable();
        match serving.peek() {
            Some(_) => serving.all(|it| self.backoffs.fails_at(target, Some(it))),
            None => self.backoffs.fails_at(target, None),
        }
    }

    /// The gate of launches in a lane, with the credential that it pauses the least.
    pub(super) fn lane_gate(&self, lane: &LaneKey, now: Instant) -> Gate<'_> {
        self.best_gate(&lane.target, |credential| {
            self.backoffs.gate(self.dependencies(lane, credential), now)
        })
    }

    /// The best gate of the credentials that serve a target. `gate`: that of each, or of `None` if
    /// there are none.
    pub(super) fn best_gate<'a>(
        &self,
        target: &ServerTarget,
        gate: impl Fn(Option<usize>) -> Gate<'a>,
    ) -> Gate<'a> {
        let gates = credentials_for(&self.settings.credentials, target).map(|it| gate(Some(it)));
        let better = |best: Gate<'a>, other: Gate<'a>| {
            if other.is_better_than(&best) { other } else { best }
        };
        gates.reduce(better).unwrap_or_else(|| gate(None))
    }
}

/// The lane, which is created if it does not exist.
pub(super) fn lane_at<'a>(
    lanes: &'a mut BTreeMap<LaneKey, Lane>,
    settings: &Settings,
    key: &LaneKey,
) -> &'a mut Lane {
    lanes.entry(key.clone()).or_insert_with(|| Lane {
        credentials: credentials_for(&settings.credentials, &key.target).collect(),
        ..Lane::default()
    })
}

/// Counts an unreachable runner in or out in its lane, while [`State::count`] has counted it in.
pub(super) fn count_unreachable(
    lanes: &mut BTreeMap<LaneKey, Lane>,
    key: Option<&LaneKey>,
    phase: &Phase,
    add: bool,
) {
    let (Phase::Starting | Phase::Idle, Some(key)) = (phase, key) else {
        return;
    };
    if let Some(lane) = lanes.get_mut(key) {
        match phase {
            Phase::Idle => step(&mut lane.unreachable_idle, add),
            _ => step(&mut lane.unreachable_starting, add),
        }
    }
}

fn step(count: &mut usize, add: bool) {
    *count = if add { *count + 1 } else { *count - 1 };
}
