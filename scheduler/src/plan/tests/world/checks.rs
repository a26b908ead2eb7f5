//! Invariants that hold after every event, and at the end.

use super::*;
use crate::plan::launch::Capacity;

impl World {
    pub(super) fn check(&mut self) {
        let running = |pool: Option<usize>| {
            self.containers
                .values()
                .filter(|it| it.exit_code.is_none() && !it.waits)
                .filter(|it| pool.is_none_or(|pool| pool == it.pool))
                .count()
        };
        let live = running(None);
        self.figures.live_max = self.figures.live_max.max(live);
        assert!(live <= self.settings.max, "{live} live");
        if self.state.recovered() {
            assert!(live <= self.state.live(), "{live} live, not {}", self.state.live());
        }
        if !self.thorough {
            return;
        }
        for (index, pool) in self.settings.pools.iter().enumerate() {
            assert!(running(Some(index)) <= pool.max, "too many in {}", pool.name);
        }
        self.check_devices();
        self.check_machine();
        self.check_parked();
        recount(&self.state);
        self.check_isolation();
        if self.chance(200) {
            self.check_reasons();
        }
    }

    /// No two runners have the same device, and each has as many as its pool says.
    fn check_devices(&self) {
        let running = self.containers.values().filter(|it| it.exit_code.is_none());
        let mut held = BTreeSet::new();
        for container in running {
            assert_eq!(container.devices.len(), self.settings.pools[container.pool].devices);
            for device in &container.devices {
                assert!(held.insert(device), "two runners have device {device}");
            }
        }
    }

    /// The machine has what all pools promise to the runners that run. Parked ones have not begun.
    fn check_machine(&self) {
        let works = |it: &&Container| it.exit_code.is_none() && !it.waits;
        let running = self.containers.values().filter(works);
        let promised = running
            .map(|it| self.settings.pools[it.pool].promised_with(&it.parameters))
            .fold(Resources::default(), Resources::plus);
        assert_eq!(promised.minus(self.machine.total()), Resources::default(), "too much");
    }

    /// No more are parked at a target than its pool says, and none of them has a job.
    fn check_parked(&self) {
        for (key, lane) in &self.state.lanes {
            assert!(lane.parked <= lane.parked_wanted, "{} are parked in {key:?}", lane.parked);
        }
        let waits = |(name, _): &(&String, &RealRunner)| {
            self.containers.get(*name).is_some_and(|it| it.waits)
        };
        for (name, registration) in self.registrations.iter().filter(waits) {
            assert!(!registration.online && registration.job.is_none(), "{name} is parked");
        }
    }

    /// A job is ended by its limit, and never sooner, even if the clock was set.
    pub(super) fn check_removal(&self, removal: &Removal) {
        // One that ended without its container has ended its job.
        if !removal.force || !self.launched.contains_key(&removal.runner) {
            return;
        }
        let pool = self.settings.pools.iter().find(|pool| pool.name == removal.pool).unwrap();
        let ran = self.now - self.busy_since[&removal.runner];
        assert!(ran >= pool.limits.job_ms, "{} ends its job after {ran} ms", removal.runner);
    }

    /// The announced reasons are up to date.
    pub(super) fn check_announced_reasons(&self) {
        for (job, reason) in self.state.waiting(self.moment().instant) {
            assert_eq!(self.explained.get(&job.key), Some(&reason), "{}", job.key);
        }
    }

    pub(super) fn check_reasons(&self) {
        let waiting = self.state.waiting(self.moment().instant);
        let devices = self.state.available_devices(Capacity::Reclaimable);
        let available = self.state.available_at_providers(Capacity::Reclaimable);
        for (job, reason) in &waiting {
            // Preempting would free too little.
            if let Ok(lane) = &self.state.jobs[&job.key].lane
                && (self.state.device_room(lane.pool, devices) == 0
                    || self.state.disk_is_short(lane.pool)
                    || self.state.room_on_machine(lane, &available) == 0)
            {
                continue;
            }
            let (preemptible, removing) = match (reason, &self.state.jobs[&job.key].lane) {
                (Waiting::PoolMax { .. }, Ok(lane)) => {
                    let counts = &self.state.pool_counts[lane.pool];
                    (counts.preemptible, counts.removing)
                }
                (Waiting::GlobalMax { .. }, _) => {
                    (self.state.counts.preemptible, self.state.counts.removing)
                }
                (
                    Waiting::HostDevices { .. }
                    | Waiting::HostMemory { .. }
                    | Waiting::HostCpus { .. },
                    _,
                ) => (1, self.state.counts.removing),
                _ => continue,
            };
            assert!(
                preemptible == 0 || removing > 0,
                "{} waits, but no runner is preempted",
                job.key
            );
        }
        for (key, tracked) in &self.state.jobs {
            let (Ok(lane), JobState::Queued) = (&tracked.lane, tracked.state) else {
                continue;
            };
            let from_fork = self.jobs[key].job.from_fork == Some(true);
            let admits = match self.state.settings.pools[lane.pool].forks {
                Forks::Allow => true,
                Forks::Refuse => !from_fork,
                Forks::Only => from_fork,
            };
            assert!(admits, "{key} waits in a pool that does not run its code");
        }
        let shown: BTreeSet<JobKey> = waiting.iter().map(|(job, _)| job.key).collect();
        assert_eq!(shown.len(), waiting.len(), "a job has two reasons");
        let queued: BTreeSet<JobKey> = self
            .state
            .jobs
            .iter()
            .filter(|(_, tracked)| {
                let other_runners = matches!(tracked.lane, Err(NoMatch::NotSelfHosted { .. }));
                tracked.state == JobState::Queued && !other_runners
            })
            .map(|(key, _)| *key)
            .collect();
        assert_eq!(shown, queued);
        for key in self.state.jobs.keys() {
            assert!(!self.state.tombstones.contains_key(key), "{key} is tracked and over");
        }
    }

    /// Ends all faults, also those that were to last for ever. Every job that a pool serves must
    /// run and end, and nothing be left over.
    pub(in crate::plan) fn settle(&mut self) {
        self.end_faults();
        self.end_troubles();
        self.apply(Event::Drain { pool: None, draining: false });
        for pool in 0..self.settings.pools.len() {
            let min_idle = self.settings.pools[pool].min_idle;
            self.apply(Event::MinIdle { pool, min_idle });
        }
        self.park(true);
        let warm = |pool: &Pool| (pool.min_idle + pool.parked) * pool.known_targets().len();
        let warm: usize = self.settings.pools.iter().map(warm).sum();
        self.wait_until_settled(warm);
        self.registrations.retain(|name, _| !self.left_to_github.contains(name));
        assert_eq!(self.registrations.len(), warm, "{}", self.leftovers());
        assert!(self.state.repositories.is_empty());
        if warm == 0 {
            assert!(self.state.lanes.is_empty() && self.state.deadlines.is_empty());
        }
        recount(&self.state);
    }

    /// Ends all faults but the refusals of GitHub. The jobs that these concern are cancelled, the
    /// others run and end. Then store, planner, Docker and GitHub agree that nothing is left,
    /// except for registrations that were reported as left.
    pub(in crate::plan) fn agree(&mut self) {
        let faults = self.faults.clone();
        self.end_faults();
        self.last_for_ever();
        self.apply(Event::Drain { pool: None, draining: false });
        for pool in 0..self.settings.pools.len() {
            self.apply(Event::MinIdle { pool, min_idle: 0 });
        }
        self.park(false);
        self.wait_until_settled(0);
        for name in self.registrations.keys() {
            let known = self.left.contains(name) || self.left_to_github.contains(name);
            assert!(known, "the registration of {name} is left, and it was not reported");
        }
        self.faults = faults;
    }

    /// Reloads the pools as they are, or without parked runners.
    fn park(&mut self, as_configured: bool) {
        let mut pools = self.state.settings().pools.clone();
        for (pool, configured) in pools.iter_mut().zip(&self.settings.pools) {
            pool.parked = if as_configured { configured.parked } else { 0 };
        }
        self.apply(Event::Pools(pools));
    }

    /// Ends all faults but the refusals of GitHub, and redelivers lost webhooks, except those
    /// that the planner can replace by a look-up: that a job which is stored was taken or is over.
    fn end_faults(&mut self) {
        self.faults = Faults::default();
        self.machines.end_faults();
        self.set_disk(None);
        self.parallel.clear();
        self.scheduled.clear();
        for job in self.jobs.values_mut() {
            job.held_until = 0;
        }
        let in_flight: BTreeSet<JobKey> = self
            .due
            .values()
            .filter_map(|pending| match pending {
                Pending::Webhook(webhook) => Some(webhook.job),
                _ => None,
            })
            .collect();
        let stored = |key: &JobKey| self.stored_jobs.contains_key(key) && !in_flight.contains(key);
        let refuses = self.has_any_trouble();
        self.lost.retain(|webhook| {
            refuses || webhook.state == JobState::Queued || !stored(&webhook.job)
        });
        let unserved = |job: &Job| match_pool(&self.settings.pools, job).is_err();
        let unserved: Vec<JobKey> =
            self.open.iter().copied().filter(|key| unserved(&self.jobs[key].job)).collect();
        for key in unserved {
            self.conclude(key);
        }
        self.redeliver();
        if refuses {
            // No look-up replaces what was never announced.
            let over: Vec<JobKey> = self
                .stored_jobs
                .iter()
                .filter(|(key, (state, _))| *state < self.jobs[key].state)
                .map(|(key, _)| *key)
                .collect();
            for key in over {
                self.announce(key, self.jobs[&key].state);
            }
        }
    }

    fn wait_until_settled(&mut self, warm: usize) {
        let began = self.now;
        while !self.settled(warm) {
            let waited = self.now - began;
            assert!(waited < 12 * 3_600_000, "does not settle: {}", self.leftovers());
            for key in self.queued.clone() {
                if self.targets_of(&self.jobs[&key].job).iter().any(|it| self.has_trouble(it)) {
                    self.conclude(key);
                }
            }
            self.step(if waited < 900_000 { 5_000 } else { 15_000 });
        }
        for (key, (state, _)) in &self.stored_jobs {
            assert_eq!(*state, JobState::Completed, "job {key} in the store");
        }
        assert_eq!(self.launched.len(), warm, "launches that did not end");
        assert_eq!(self.stored_runners.len(), warm);
        assert!(self.state.jobs.is_empty());
    }

    fn settled(&self, warm: usize) -> bool {
        self.open.is_empty()
            && self.due.is_empty()
            && self.containers.len() == warm
            && self.state.runners.keys().all(|name| self.registrations.contains_key(name))
            && self.state.runners.len() == warm
            && self.state.jobs.is_empty()
            && (self.state.left.is_empty() || self.has_any_trouble())
            && self.state.job_look_ups.unconfirmed.is_empty()
            && self.state.runners().all(|it| matches!(it.phase, Phase::Idle | Phase::Parked { .. }))
    }

    fn leftovers(&self) -> String {
        let waiting = self.state.waiting(self.moment().instant);
        let waiting: Vec<String> =
            waiting.iter().take(5).map(|(job, reason)| format!("{}: {reason}", job.key)).collect();
        format!(
            "jobs {:?}\nknown {:?}\nwaiting {waiting:?}\nregistrations {:?}\ncontainers {:?}\nrunners {:?}\n\
             backoffs {:?}\ndue {:?}",
            self.open,
            self.state.jobs.values().take(5).collect::<Vec<_>>(),
            self.registrations,
            self.containers,
            self.state.runners,
            self.state.backoffs().collect::<Vec<_>>(),
            self.due,
        )
    }
}
