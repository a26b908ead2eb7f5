//! Other pools for a planner that is at work.

use std::mem;

use super::{Phase, Pool, Runner, Settings, State, jobs::Tracked};
use crate::model::UnixMs;

impl State {
    /// Pools are known by their names; whatever follows from them is worked out anew, and
    /// what is known of jobs and runners stays. Runners of pools that are gone finish.
    pub(super) fn set_pools(&mut self, pools: Vec<Pool>, now: UnixMs) {
        let settings = Settings { pools, ..self.settings.clone() };
        let fresh = Self::new(settings, self.random.next());
        let old = mem::replace(self, fresh);
        let old_pools = old.settings.pools;
        let index_now = |settings: &Settings, index: usize| {
            let name = &old_pools[index].name;
            settings.pools.iter().position(|pool| pool.name == *name)
        };

        self.tombstones = old.tombstones;
        self.tombstones_by_age = old.tombstones_by_age;
        self.gone = old.gone;
        self.gone_by_age = old.gone_by_age;
        self.looked_at = old.looked_at;
        self.looked_target = old.looked_target;
        self.looked_at_job = old.looked_at_job;
        self.recovered = old.recovered;
        self.draining = old.draining;
        for pool in old.draining_pools {
            self.draining_pools.extend(index_now(&self.settings, pool));
        }
        for (pool, ends) in old.unexplained_exits.into_iter().enumerate() {
            if let Some(pool) = index_now(&self.settings, pool) {
                self.unexplained_exits[pool] = ends;
            }
        }
        self.backoffs = old.backoffs.of_pools(|pool| index_now(&self.settings, pool));
        for runner in old.runners.into_values() {
            self.keep_runner(runner, now);
        }
        for Tracked { job, progress, looked_at, waiting, .. } in old.jobs.into_values() {
            let key = job.key;
            self.track(job, progress);
            if let Some(tracked) = self.jobs.get_mut(&key) {
                (tracked.looked_at, tracked.waiting) = (looked_at, waiting);
            }
        }
    }

    fn keep_runner(&mut self, mut runner: Runner, now: UnixMs) {
        let pools = &self.settings.pools;
        let pool = pools.iter().position(|pool| pool.name == runner.pool);
        runner.lane = pool.map(|pool| (pool, runner.target.clone()));
        let deadline = match runner.phase {
            // Nobody has a use for it any more.
            Phase::Idle if runner.lane.is_none() => Some(now),
            _ => runner.deadline,
        };
        runner.deadline = None;
        let name = runner.name.clone();
        self.insert_runner(runner);
        self.set_deadline(&name, deadline);
    }
}
