//! Replacing the pools of a running planner.

use std::mem;

use super::{LaneKey, Phase, Pool, Runner, Settings, Stage, State, held::Probing, jobs::Tracked};
use crate::model::{Instant, JobKey, JobState};

impl State {
    /// Pools are identified by name. Jobs are matched again, and what is known of jobs and
    /// runners stays. Runners of removed pools finish.
    pub(super) fn set_pools(&mut self, pools: Vec<Pool>, now: Instant) {
        if pools == self.settings.pools {
            return;
        }
        let settings = Settings { pools, ..self.settings.clone() };
        let fresh = Self::new(settings, self.random.next());
        let old = mem::replace(self, fresh);
        let held = old.held_jobs();
        let old_pools = old.settings.pools;
        let index_now = |settings: &Settings, index: usize| {
            let name = &old_pools[index].name;
            settings.pools.iter().position(|pool| pool.name == *name)
        };
        let lane_now = |settings: &Settings, lane: LaneKey| {
            Some(LaneKey { pool: index_now(settings, lane.pool)?, ..lane })
        };

        self.tombstones = old.tombstones;
        self.tombstones_by_age = old.tombstones_by_age;
        self.gone = old.gone;
        self.gone_by_age = old.gone_by_age;
        self.devices = old.devices;
        self.machines = old.machines;
        self.look_up_backoffs = old.look_up_backoffs;
        self.launch_rates = old.launch_rates;
        self.left = old.left;
        self.unreachable.keep_look_ups(old.unreachable);
        self.forced = old.forced;
        self.lists = old.lists;
        self.last_look_up = old.last_look_up;
        self.last_looked_up = old.last_looked_up;
        self.job_look_ups = old.job_look_ups;
        self.run_look_ups = old.run_look_ups.without_jobs();
        (self.recovered, self.paused) = (old.recovered, old.paused);
        self.before_adoption = old.before_adoption;
        self.draining = old.draining;
        self.draining_pools = old.draining_pools;
        for (pool, exits) in old.unexplained_exits.into_iter().enumerate() {
            if let Some(pool) = index_now(&self.settings, pool) {
                self.unexplained_exits[pool] = exits;
            }
        }
        let of_parking = old.parking_pauses.into_iter().zip(old.wakes_doubtful);
        for (pool, (pause, doubtful)) in of_parking.enumerate() {
            if let Some(pool) = index_now(&self.settings, pool) {
                self.parking_pauses[pool] = pause;
                self.wakes_doubtful[pool] = doubtful;
            }
        }
        for (pool, lack) in old.lack_room.into_iter().enumerate() {
            if let Some(pool) = index_now(&self.settings, pool) {
                self.lack_room[pool] = lack;
            }
        }
        self.backoffs = old.backoffs.reindexed(|pool| index_now(&self.settings, pool));
        for runner in old.runners.into_values() {
            self.keep_runner(runner, now);
        }
        for old in old.jobs.into_values() {
            let Tracked { job, lane, state, since, runner, .. } = old;
            let Tracked { looked_up, look_ups, look_up_due, waiting, .. } = old;
            let key = job.key;
            self.track(job, state, since, lane.is_ok());
            if let (Ok(lane), JobState::Queued) = (lane, state)
                && let Some(lane) = lane_now(&self.settings, lane)
                && let Some(Tracked { candidates, .. }) = self.jobs.get(&key)
                && candidates.contains(&lane)
            {
                // A runner may have been launched for it there.
                self.move_job(key, lane);
            }
            if let Some(tracked) = self.jobs.get_mut(&key) {
                (tracked.runner, tracked.waiting) = (runner, waiting);
                (tracked.looked_up, tracked.look_ups) = (looked_up, look_ups);
                tracked.look_up_due = look_up_due;
            }
        }
        for (key, old) in old.lanes {
            let key = lane_now(&self.settings, key);
            if let Some(lane) = key.and_then(|key| self.lanes.get_mut(&key)) {
                lane.keep_history(old);
            }
        }
        for (job, lane, probing) in held {
            let lane = lane_now(&self.settings, lane);
            if self.jobs.get(&job).and_then(|tracked| tracked.lane.as_ref().ok()) == lane.as_ref() {
                self.hold_back_again(job, probing);
            }
        }
    }

    /// The jobs that GitHub holds back, each with its lane.
    fn held_jobs(&self) -> Vec<(JobKey, LaneKey, Probing)> {
        let mut held = Vec::new();
        for (key, lane) in &self.lanes {
            for (_, job) in &lane.held {
                let repository = self.jobs.get(job).map(|tracked| &tracked.job.repository);
                let probing = repository.and_then(|repository| self.probing(repository, key));
                held.extend(probing.map(|probing| (*job, key.clone(), probing)));
            }
        }
        held
    }

    fn keep_runner(&mut self, mut runner: Runner, now: Instant) {
        runner.lane = self.lane_of(&runner.pool, &runner.target, &runner.parameters);
        let deadline = match runner.phase {
            // No job will ever be assigned to it.
            Phase::Idle | Phase::Provisioning(Stage::Room) if runner.lane.is_none() => Some(now),
            Phase::Parked { .. } if self.is_outdated(&runner) => Some(now),
            _ => runner.deadline,
        };
        runner.deadline = None;
        let name = runner.name.clone();
        self.insert_runner(runner);
        self.set_deadline(&name, deadline);
    }
}
