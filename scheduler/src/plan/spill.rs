//! Spill-over: while a job's pool is full, draining, failing or blocked, the job moves to the next
//! pool that matches it and can serve it.
//!
//! A job that was launched for stays where it is. One that waits moves again whenever another
//! lane can serve it sooner, so none waits for a pool that is broken.

use std::sync::Arc;

use super::{
    LaneKey, Parameters, Resources, State,
    backoff::{Blocked, Gate},
    credential::credential_for,
    demand::{Lane, lane_at},
    jobs::Tracked,
    launch::{Capacity, let_through},
};
use crate::model::{Instant, JobKey};

/// Jobs that move at one event, so that no event takes long.
const MOVES_AT_ONCE_MAX: usize = 200;

/// The lanes that could serve a job, the best one first. Empty if there is only one.
pub(super) type Candidates = Arc<[LaneKey]>;

/// What can still be served while moves are being found.
struct Room {
    /// In each pool.
    in_pools: Vec<usize>,
    /// At each provider.
    resources: Vec<Resources>,
}

impl State {
    /// Counts a queued job in at a lane.
    pub(super) fn enqueue(&mut self, job: JobKey, since: Instant, key: &LaneKey) {
        let Some(Tracked { job: known, candidates, .. }) = self.jobs.get(&job) else {
            return;
        };
        let (repository, candidates) = (known.repository.clone(), Arc::clone(candidates));
        let lane = lane_at(&mut self.lanes, &self.settings, key);
        lane.queued.insert((since, job));
        if !candidates.is_empty() {
            lane.movable.entry(candidates).or_default().insert((since, job));
            self.movable.insert(key.clone());
        }
        self.queue_changed(&repository, key, true);
    }

    /// Removes a job from the queue of a lane. Returns whether it was there.
    pub(super) fn dequeue(
        &mut self,
        entry: (Instant, JobKey),
        key: &LaneKey,
        candidates: &Candidates,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        if let Some(jobs) = lane.movable.get_mut(candidates) {
            jobs.remove(&entry);
            if jobs.is_empty() {
                lane.movable.remove(candidates);
            }
            if lane.movable.is_empty() {
                self.movable.remove(key);
            }
        }
        lane.queued.remove(&entry)
    }

    pub(super) fn move_job(&mut self, job: JobKey, to: LaneKey) {
        let Some(tracked) = self.jobs.get_mut(&job) else {
            return;
        };
        let Ok(lane) = &mut tracked.lane else {
            return;
        };
        let from = std::mem::replace(lane, to.clone());
        let (since, candidates) = (tracked.since, Arc::clone(&tracked.candidates));
        let repository = tracked.job.repository.clone();
        if self.dequeue((since, job), &from, &candidates) {
            self.queue_changed(&repository, &from, false);
            self.enqueue(job, since, &to);
        } else if let Some(Tracked { lane, .. }) = self.jobs.get_mut(&job) {
            *lane = Ok(from);
        }
    }

    /// Moves jobs that their own lanes cannot serve. Returns whether it moved any.
    pub(super) fn spill(&mut self, now: Instant) -> bool {
        self.spill_where(|_| true, now)
    }

    /// The same for pools whose provider has no room, as far as is known, before anything is
    /// launched there.
    pub(super) fn spill_for_lack_of_room(&mut self, now: Instant) {
        let lacking: Vec<bool> = self.lack_room.iter().map(Option::is_some).collect();
        if lacking.contains(&true) {
            self.spill_where(|key| lacking[key.pool], now);
        }
    }

    fn spill_where(&mut self, from: impl Fn(&LaneKey) -> bool, now: Instant) -> bool {
        if self.movable.is_empty() || !self.recovered() || self.draining {
            return false;
        }
        let mut moves = Vec::new();
        for capacity in [Capacity::Free, Capacity::Reclaimable] {
            let mut room = self.room_for_spill(capacity, now);
            let last = matches!(capacity, Capacity::Reclaimable);
            if room.in_pools.iter().all(|room| *room == 0) && !(last && self.any_lane_paused()) {
                continue;
            }
            for key in self.movable.iter().filter(|key| from(key)) {
                self.spill_from(key, capacity, &mut room, &mut moves, now);
                if moves.len() >= MOVES_AT_ONCE_MAX {
                    break;
                }
            }
            if !moves.is_empty() {
                break;
            }
        }
        let moved = !moves.is_empty();
        for (job, lane) in moves {
            self.move_job(job, lane);
        }
        moved
    }

    fn spill_from(
        &self,
        key: &LaneKey,
        capacity: Capacity,
        room: &mut Room,
        moves: &mut Vec<(JobKey, LaneKey)>,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.unserved() > 0) else {
            return;
        };
        let paused = matches!(capacity, Capacity::Reclaimable) && self.is_paused(key, now);
        let useful = |other: &LaneKey| other != key && (room.in_pools[other.pool] > 0 || paused);
        if !lane.movable.keys().any(|candidates| candidates.iter().any(useful)) {
            return;
        }
        let own = self
            .room_in_pool_for_spill(key.pool, capacity, now)
            .min(self.room_on_machine(key, &room.resources))
            .min(self.let_into(key, now));
        let mut excess = lane.unserved().saturating_sub(own);
        for (candidates, jobs) in &lane.movable {
            let mut jobs = jobs.iter().map(|(_, job)| *job);
            for other in candidates.iter().filter(|other| *other != key) {
                let mut places = self.room_at(other, room, now).min(excess);
                while places > 0 && moves.len() < MOVES_AT_ONCE_MAX {
                    let Some(job) = jobs.next() else { break };
                    let Some(counts) = self.may_move(job, key, other) else { continue };
                    moves.push((job, other.clone()));
                    if counts {
                        places -= 1;
                        excess -= 1;
                        room.in_pools[other.pool] = room.in_pools[other.pool].saturating_sub(1);
                        let resources = &mut room.resources[self.pool(other.pool).provider];
                        *resources = resources.minus(self.promised_in(other));
                    }
                }
            }
            // They wait there in the order of their age. Here they would wait for longer.
            let open = candidates.iter().find(|it| *it != key && !self.is_paused(it, now));
            if let Some(open) = open.filter(|_| paused) {
                while excess > 0 && moves.len() < MOVES_AT_ONCE_MAX {
                    let Some(job) = jobs.next() else { break };
                    let Some(counts) = self.may_move(job, key, open) else { continue };
                    moves.push((job, open.clone()));
                    excess -= usize::from(counts);
                }
            }
        }
    }

    /// `None` if GitHub holds jobs of its repository back there. `Some(false)` if its repository
    /// is at its limit, so that it takes no place yet.
    fn may_move(&self, job: JobKey, from: &LaneKey, to: &LaneKey) -> Option<bool> {
        let repository = &self.jobs.get(&job)?.job.repository;
        if self.probing(repository, to).is_some() {
            return None;
        }
        self.share(repository, from).map(|share| share.allowed == share.wanted())
    }

    /// How many more jobs a lane can serve.
    fn room_at(&self, key: &LaneKey, room: &Room, now: Instant) -> usize {
        let places = room.in_pools[key.pool]
            .min(self.room_on_machine(key, &room.resources))
            .min(self.let_into(key, now));
        match self.lanes.get(key) {
            Some(lane) => lane.spare() + places.saturating_sub(lane.unserved()),
            None => places,
        }
    }

    fn room_for_spill(&self, capacity: Capacity, now: Instant) -> Room {
        let pools = 0..self.settings.pools.len();
        Room {
            in_pools: pools.map(|pool| self.room_in_pool_for_spill(pool, capacity, now)).collect(),
            resources: self.available_at_providers(capacity),
        }
    }

    /// Unlike for a launch, the limit of launches in flight does not count: it passes soon.
    fn room_in_pool_for_spill(&self, pool: usize, capacity: Capacity, now: Instant) -> usize {
        if self.pool_draining(pool) || !self.recovered_for(pool) || self.disk_is_short(pool) {
            return 0;
        }
        let (all, counts) = (&self.counts, &self.pool_counts[pool]);
        let taken = capacity.taken(all.live, all.removing, all.preemptible);
        let taken_here = capacity.taken(counts.live, counts.removing, counts.preemptible);
        let in_all = self.settings.max.saturating_sub(taken);
        // With other parameters, it may work. What the machine has counts for each lane.
        let through = match self.pool(pool).label_parameters.is_empty() {
            true => self.room_with_parameters(pool, &Parameters::default(), now),
            false => usize::MAX,
        };
        self.pool(pool)
            .max
            .saturating_sub(taken_here)
            .min(in_all)
            .min(self.known_room(pool, now))
            .min(self.device_room(pool, self.available_devices(capacity)))
            .min(through)
    }

    /// How many launches the back-offs below a pool's let through in a lane.
    fn let_into(&self, key: &LaneKey, now: Instant) -> usize {
        let provider = self.pool(key.pool).provider;
        let in_lane = self.lanes.get(key).map_or(0, Lane::in_flight);
        let through =
            |blocked, in_flight| let_through(&self.backoffs.gate_for(blocked, now), in_flight);
        through(Blocked::Lane(key.clone()), in_lane)
            .min(self.room_with_parameters(key.pool, &key.parameters, now))
            .min(self.room_at_target(&key.target, now))
            .min(through(Blocked::Provider(provider), self.provisioning_at[provider]))
            .min(through(Blocked::Store, self.counts.provisioning - self.counts.without_room))
    }

    /// Whether a lane is draining or paused by a failure, rather than only full.
    fn is_paused(&self, key: &LaneKey, now: Instant) -> bool {
        let credential = credential_for(&self.settings.credentials, &key.target);
        self.pool_draining(key.pool)
            || !self.recovered_for(key.pool)
            || credential.is_none()
            || self.lane_gate(key, now) != Gate::Open
    }

    /// Whether some lane may be paused. Each one is then checked by itself.
    fn any_lane_paused(&self) -> bool {
        self.backoffs.all().next().is_some()
            || (0..self.settings.pools.len())
                .any(|pool| self.pool_draining(pool) || !self.recovered_for(pool))
            || self.movable.iter().any(|key| self.credentials_at(key).is_empty())
    }
}
