//! Launching runners, and preempting idle ones to make room for them.

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::Duration,
};

use super::{
    Action, EndReason, LaneKey, Launch, LifeLimits, Parameters, Phase, Resources, Runner, Stage,
    State,
    backoff::{Blocked, Gate},
    choice::CredentialRoom,
    demand::Counts,
    order::Turns,
    runner::Seen,
};
use crate::model::{Instant, Moment, ServerTarget};

/// Limit of launches in flight, in each pool and in all pools together. In the total, launches
/// that wait for their image or for room do not count. The executor works on a few at a time, and
/// the time limit of the others would run out in its queue.
pub(super) const LAUNCHING_MAX: usize = 64;
/// While something fails, launches are found in rounds: a launch may take the place in its pool
/// that another target would have used to try whether its credential works again, and then a
/// third target tries.
const ROUNDS_MAX: usize = 3;
/// The executor enforces the limit of a launch. If it reports nothing, the launch is given up
/// this long after the limit.
const PROVISIONING_MARGIN: Duration = Duration::from_secs(10);

impl State {
    pub(super) fn launch_missing(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for _ in 0..ROUNDS_MAX {
            let missing = self.missing(Capacity::Free, now.instant);
            let nothing = missing.is_empty();
            for Missing { lane, credential, count } in missing {
                let prompts = self.prompts(&lane, count);
                let Some(credential) = credential else {
                    self.wake(&lane, count, prompts, now, actions);
                    continue;
                };
                let mut prompts = prompts.into_iter();
                for _ in 0..count {
                    let launched = self.launch(&lane, credential, prompts.next(), false, now);
                    actions.push(Action::Launch(launched));
                }
            }
            if nothing || self.backoffs.is_empty() {
                break;
            }
        }
    }

    /// Removes preemptible runners, as many as jobs in other lanes need their capacity. Returns
    /// whether it removed any.
    pub(super) fn preempt(&mut self, now: Moment, actions: &mut Vec<Action>) -> bool {
        if self.counts.preemptible == 0 {
            return false;
        }
        let mut wanted = vec![0; self.settings.pools.len()];
        let mut resources = vec![Resources::default(); self.machines.len()];
        for Missing { lane, count, .. } in self.missing(Capacity::Reclaimable, now.instant) {
            wanted[lane.pool] += count;
            let resources = &mut resources[self.pool(lane.pool).provider];
            *resources = resources.plus(self.promised_in(&lane).times(count));
        }
        let in_all: usize = wanted.iter().sum();
        if in_all == 0 {
            return false;
        }
        let counts = &self.counts;
        let lacking = (in_all + counts.live - counts.removing).saturating_sub(self.settings.max);
        let mut lacking_in: Vec<usize> = wanted
            .iter()
            .zip(self.settings.pools.iter().zip(&self.pool_counts))
            .map(|(wanted, (pool, counts))| match *wanted {
                0 => 0,
                wanted => (wanted + counts.live - counts.removing).saturating_sub(pool.max),
            })
            .collect();
        self.preempt_for_devices(&wanted, &mut lacking_in);
        self.preempt_for_resources(&resources, &mut lacking_in);
        let lacking_elsewhere = lacking.saturating_sub(lacking_in.iter().sum());
        let names = self.to_preempt(lacking_in, lacking_elsewhere);
        let any = !names.is_empty();
        for name in names {
            let lane = self.runners.get(&name).and_then(|runner| runner.lane.clone());
            self.start_removal(&name, EndReason::Preempted, false, now, actions);
            if let Some(lane) = lane {
                self.probe_preempted(&lane, now.instant);
            }
        }
        any
    }

    /// Names of preemptible runners: `of_pool` of each pool, and `of_any` more of any.
    fn to_preempt(&self, mut of_pool: Vec<usize>, mut of_any: usize) -> Vec<String> {
        let mut of_lane: BTreeMap<&LaneKey, Chosen<'_>> = BTreeMap::new();
        for pool in self.pools_by_priority.iter().rev().flatten() {
            for (key, count) in self.preemptible_in(*pool) {
                let count = count.min(of_pool[*pool] + of_any);
                let own = count.min(of_pool[*pool]);
                of_pool[*pool] -= own;
                of_any -= count - own;
                if count == 0 {
                    break;
                }
                of_lane.insert(key, Chosen { count, runners: BinaryHeap::new() });
            }
        }
        if of_lane.is_empty() {
            return Vec::new();
        }
        for runner in self.runners.values() {
            let online = runner.phase == Phase::Idle;
            if (online || runner.phase == Phase::Starting)
                && let Some(lane) = &runner.lane
                && let Some(chosen) = of_lane.get_mut(lane)
            {
                chosen.consider((!online, runner.since.instant, &runner.name));
            }
        }
        let mut unused: Vec<_> = of_lane.into_values().flat_map(|it| it.runners).collect();
        unused.sort_unstable();
        unused.into_iter().map(|(_, _, name)| name.to_owned()).collect()
    }

    /// The lanes of a pool with preemptible runners, in the order in which they lose them, each
    /// with their number.
    pub(super) fn preemptible_in(&self, pool: usize) -> impl Iterator<Item = (&LaneKey, usize)> {
        let keys = self.preemptible[pool].iter();
        keys.filter_map(|key| Some((key, self.lanes.get(key)?.preemptible)))
    }

    /// How many to launch in which lane: by priority, then by [`Order`](super::Order).
    fn missing(&self, capacity: Capacity, now: Instant) -> Vec<Missing> {
        let mut missing: Vec<Missing> = Vec::new();
        let mut room = self.room(capacity, now);
        let mut room_at = self.room_at_providers(now);
        let mut devices = self.available_devices(capacity);
        let mut resources = self.available_at_providers(capacity);
        let mut room_with = self.room_with_credentials(capacity, now);
        for class in &self.pools_by_priority {
            let mut room_in: BTreeMap<usize, usize> = class
                .iter()
                .filter(|pool| room > 0 && !self.in_deficit[**pool].is_empty())
                .map(|pool| (*pool, self.room_in_pool(*pool, capacity)))
                .filter(|(_, room)| *room > 0)
                .collect();
            let mut turns = Turns::new(self, room_in.keys().copied());
            let mut room_with_parameters: HashMap<(usize, Parameters), usize> = HashMap::new();
            // What each lane may still get.
            let mut left: HashMap<&LaneKey, usize> = HashMap::new();
            // The parked runners of each lane that may still be woken.
            let mut parked: HashMap<&LaneKey, usize> = HashMap::new();
            while room > 0
                && let Some(turn) = turns.next()
            {
                let lane = turn.lane;
                let room_in = room_in.entry(lane.pool).or_default();
                let pool = self.pool(lane.pool);
                let room_at = &mut room_at[pool.provider];
                let resources = &mut resources[pool.provider];
                let promised = self.promised_in(lane);
                let room_with_parameters = room_with_parameters
                    .entry((lane.pool, lane.parameters.of_container()))
                    .or_insert_with(|| self.room_with_parameters(lane.pool, &lane.parameters, now));
                // Other lanes of the pool may need less, or another image.
                let fits = resources.room_for(promised) > 0 && *room_with_parameters > 0;
                if *room_in == 0
                    || *room_at == 0
                    || self.device_room(lane.pool, devices) == 0
                    || !fits && pool.label_parameters.is_empty()
                {
                    turns.close(lane.pool);
                    continue;
                }
                if !fits {
                    continue;
                }
                let left = left.entry(lane).or_insert_with(|| self.missing_in(lane, capacity, now));
                let parked =
                    parked.entry(lane).or_insert_with(|| self.wakeable(lane, now).min(*left));
                let credential = if *parked > 0 {
                    // GitHub is not asked for one that is registered already.
                    *parked -= 1;
                    None
                } else {
                    let wanted = usize::from(*left > 0);
                    let chosen = self.choose(lane, wanted, &mut room_with, now).pop();
                    let Some((credential, _)) = chosen else { continue };
                    Some(credential)
                };
                *left -= 1;
                *room_in -= 1;
                *room_at -= 1;
                room -= 1;
                *room_with_parameters -= 1;
                devices -= pool.devices;
                *resources = resources.minus(promised);
                turns.served(turn);
                match missing.last_mut() {
                    Some(last) if last.lane == *lane && last.credential == credential => {
                        last.count += 1;
                    }
                    _ => missing.push(Missing { lane: lane.clone(), credential, count: 1 }),
                }
            }
        }
        missing
    }

    /// How many may be launched in total.
    fn room(&self, capacity: Capacity, now: Instant) -> usize {
        if !self.recovered() || self.draining {
            return 0;
        }
        let Counts { live, removing, preemptible, provisioning, pulling, without_room, .. } =
            self.counts;
        let in_flight = provisioning - without_room;
        let in_progress = in_flight - pulling;
        self.settings
            .max
            .saturating_sub(capacity.taken(live, removing, preemptible))
            .min(LAUNCHING_MAX.saturating_sub(in_progress))
            .min(let_through(&self.backoffs.gate_for(Blocked::Store, now), in_flight))
    }

    /// How many may be launched at each provider.
    fn room_at_providers(&self, now: Instant) -> Vec<usize> {
        let room = self.room_by(&self.provisioning_at, Blocked::Provider, now).into_iter();
        room.zip(&self.recovered)
            .map(|(room, recovered)| if *recovered { room } else { 0 })
            .collect()
    }

    /// How many may be launched with each credential.
    fn room_with_credentials(&self, capacity: Capacity, now: Instant) -> CredentialRoom {
        let room = self.room_by(&self.provisioning_with, Blocked::Credential, now);
        CredentialRoom::new(room, self.probes(capacity, now))
    }

    /// For each credential of which one launch is to find out whether it works again: the target
    /// of that launch. Those that failed take turns, so that none of them holds up the others.
    fn probes(&self, capacity: Capacity, now: Instant) -> Vec<Option<ServerTarget>> {
        let mut probes = vec![None; self.settings.credentials.len()];
        if self.backoffs.is_empty() {
            return probes;
        }
        let available = self.available_at_providers(capacity);
        for (credential, probe) in probes.iter_mut().enumerate() {
            if !self.backoffs.probes(credential, now) {
                continue;
            }
            let may_launch = |key: &LaneKey| {
                self.credentials_at(key).contains(&credential)
                    && !matches!(
                        self.backoffs.gate_at(&key.target, Some(credential), now),
                        Gate::Closed(..)
                    )
                    && self.room_on_machine(key, &available) > 0
                    && self.room_with_parameters(key.pool, &key.parameters, now) > 0
                    && self.missing_in(key, capacity, now) > self.wakeable(key, now)
            };
            let waiting = self.in_deficit.iter().enumerate().filter(|(pool, lanes)| {
                !lanes.is_empty() && self.room_in_pool(*pool, capacity) > 0
            });
            *probe = waiting
                .flat_map(|(_, lanes)| lanes.iter().map(|(_, key)| key))
                .filter(|key| may_launch(key))
                .map(|key| &key.target)
                .min_by_key(|target| self.backoffs.last_failed(target, credential))
                .cloned();
        }
        probes
    }

    fn room_by(
        &self,
        provisioning: &[usize],
        blocked: fn(usize) -> Blocked,
        now: Instant,
    ) -> Vec<usize> {
        provisioning
            .iter()
            .enumerate()
            .map(|(index, provisioning)| {
                let_through(&self.backoffs.gate_for(blocked(index), now), *provisioning)
            })
            .collect()
    }

    fn room_in_pool(&self, pool: usize, capacity: Capacity) -> usize {
        if self.pool_draining(pool) || self.disk_is_short(pool) {
            return 0;
        }
        let counts = &self.pool_counts[pool];
        self.pool(pool)
            .max
            .saturating_sub(capacity.taken(counts.live, counts.removing, counts.preemptible))
            .min(self.launches_max(pool).saturating_sub(counts.provisioning))
            .min(self.device_room(pool, self.available_devices(capacity)))
    }

    /// How many the back-off of a pool with these parameters lets through.
    pub(super) fn room_with_parameters(
        &self,
        pool: usize,
        parameters: &Parameters,
        now: Instant,
    ) -> usize {
        let gate = self.backoffs.gate_for_pool(pool, parameters, now);
        if gate == Gate::Open {
            return usize::MAX;
        }
        let parameters = parameters.of_container();
        let like_it = self
            .lanes
            .iter()
            .filter(|(key, _)| key.pool == pool && key.parameters.of_container() == parameters);
        // Starting ones count: only a runner that is online proves that the image works.
        let_through(&gate, like_it.map(|(_, lane)| lane.in_flight() + lane.starting).sum())
    }

    pub(super) fn missing_in(&self, key: &LaneKey, capacity: Capacity, now: Instant) -> usize {
        let Some(lane) = self.lanes.get(key) else {
            return 0;
        };
        let gate = self.backoffs.gate_for_lane(key, now);
        let missing = match capacity {
            Capacity::Free => lane.deficit(),
            Capacity::Reclaimable => lane.job_deficit(),
        };
        missing.min(let_through(&gate, lane.in_flight()))
    }

    /// Deliveries of the oldest jobs for which no runner is being launched yet.
    fn prompts(&self, key: &LaneKey, count: usize) -> Vec<String> {
        let Some(lane) = self.lanes.get(key) else {
            return Vec::new();
        };
        let unserved = lane.queued.iter().chain(&lane.held).skip(lane.unused()).take(count);
        unserved
            .filter_map(|(_, job)| self.jobs.get(job))
            .map(|tracked| tracked.job.delivery.clone())
            .collect()
    }

    pub(super) fn launch(
        &mut self,
        key: &LaneKey,
        credential: usize,
        prompted_by: Option<String>,
        park: bool,
        now: Moment,
    ) -> Launch {
        let pool_name = self.pool(key.pool).name.clone();
        let name = loop {
            let (instance, number) = (&self.settings.instance, self.random.next());
            let name = match self.settings.term {
                Some(term) => format!("{instance}-{pool_name}-{term:04x}{:08x}", number >> 32),
                None => format!("{instance}-{pool_name}-{:012x}", number >> 16),
            };
            if !self.runners.contains_key(&name) {
                break name;
            }
        };
        let runner = Runner {
            name: name.clone(),
            pool: pool_name,
            provider: self.pool(key.pool).provider,
            target: key.target.clone(),
            parameters: key.parameters.clone(),
            lane: Some(key.clone()),
            phase: match park {
                true => Phase::Parking(Stage::Accepted),
                false => Phase::Provisioning(Stage::Accepted),
            },
            created: now,
            since: now,
            revision: self.pool(key.pool).revision,
            woken: false,
            credential: Some(credential),
            registration_id: None,
            job: None,
            finished: false,
            no_room: None,
            unreachable: None,
            promised: self.promised_in(key),
            deadline: None,
            seen: Seen::default(),
        };
        self.insert_runner(runner);
        self.limit_launch(&name, now.instant);
        self.launch_rates.launched(credential, &key.target, now.instant);
        let LaneKey { pool, target, parameters } = key.clone();
        let devices = self.take_devices(pool, &name);
        Launch { runner: name, pool, target, parameters, credential, devices, park, prompted_by }
    }

    /// The launch may take until the limit of its phase from now.
    pub(super) fn limit_launch(&mut self, name: &str, now: Instant) {
        let LifeLimits { provisioning_ms, .. } = self.limits(name);
        let deadline = now + Duration::from_millis(provisioning_ms) + PROVISIONING_MARGIN;
        self.set_deadline(name, Some(deadline));
    }
}

/// Launches in one lane with one credential.
struct Missing {
    lane: LaneKey,
    /// `None`: parked runners are woken instead.
    credential: Option<usize>,
    count: usize,
}

/// The runners of a lane to preempt. Those that have been idle longest come first, and those that
/// start last.
struct Chosen<'a> {
    count: usize,
    runners: BinaryHeap<(bool, Instant, &'a str)>,
}

impl<'a> Chosen<'a> {
    fn consider(&mut self, runner: (bool, Instant, &'a str)) {
        self.runners.push(runner);
        if self.runners.len() > self.count {
            self.runners.pop();
        }
    }
}

/// Which part of the limits counts as available.
#[derive(Clone, Copy)]
pub(super) enum Capacity {
    Free,
    /// Free capacity plus that of runners that are being removed or could be preempted. For jobs
    /// only: no runner is preempted to keep another one idle.
    Reclaimable,
}

impl Capacity {
    pub(super) fn taken(self, live: usize, removing: usize, preemptible: usize) -> usize {
        match self {
            Self::Free => live,
            Self::Reclaimable => live - removing - preemptible,
        }
    }
}

/// How many launches a gate lets through while `in_flight` others may still prove that the
/// cause is gone.
pub(super) fn let_through(gate: &Gate<'_>, in_flight: usize) -> usize {
    match gate {
        Gate::Open => usize::MAX,
        Gate::OneAtATime(..) => usize::from(in_flight == 0),
        Gate::Closed(..) => 0,
    }
}
