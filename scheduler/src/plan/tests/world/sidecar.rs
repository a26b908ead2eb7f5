//! The sidecar's part: carries out actions, reports events, restarts and reloads.

use super::*;

impl World {
    pub(super) fn launch(&mut self, launch: Launch, stage: Stage) {
        let runner = launch.runner.clone();
        let waited = stage == Stage::Room;
        if waited && self.chance(self.faults.room_stays_away) {
            return self.waits_for_room(launch);
        }
        // It got room.
        if waited {
            assert!(self.now < self.credentials_end(&runner), "{runner} has no credentials");
        }
        let stage = if waited { Stage::Container } else { stage };
        self.apply(Event::Progress { runner: runner.clone(), stage });
        let fails = self.chance(self.faults.launch_fails);
        let credential = Some(launch.credential);
        if self.hangs(&launch.target, credential) {
            if stage == Stage::Container && self.chance(500) {
                self.container_starts(launch);
            }
            return;
        }
        match stage {
            Stage::Accepted => self.in_ms(0, 100, Pending::Launch(launch, Stage::Image)),
            Stage::Image if fails => self.launch_fails(&runner, Cause::Image, false),
            Stage::Image => self.in_ms(0, 100, Pending::Launch(launch, Stage::Credentials)),
            Stage::Credentials => {
                let target = launch.target.clone();
                let began = self.launched.get(&runner).copied().unwrap_or(self.now);
                let refusal = self.refusal(&target, credential, Purpose::Launch, began);
                if let Some((cause, late)) = refusal {
                    self.figures.launches_refused += 1;
                    let failed = launch_failed(&runner, cause, 0, false);
                    return self.in_ms(late, late, Pending::Event(failed));
                }
                let causes = [
                    Cause::GitHubUnavailable,
                    Cause::RateLimited,
                    Cause::Forbidden,
                    Cause::Unauthorized,
                    Cause::Rejected,
                    Cause::UnexpectedResponse,
                ];
                let cause = causes[self.below(causes.len() as u64) as usize];
                // A call whose response was lost may have registered a runner.
                let lost = matches!(cause, Cause::GitHubUnavailable | Cause::UnexpectedResponse);
                if !fails || lost && self.chance(500) {
                    let (pool, parameters) = (launch.pool, launch.parameters.clone());
                    let registration =
                        RealRunner { pool, target, parameters, online: false, job: None };
                    self.registrations.insert(runner.clone(), registration);
                }
                if fails {
                    self.launch_fails(&runner, cause, false);
                } else {
                    if self.chance(500) {
                        self.apply(Event::Registered { runner, registration_id: 1 });
                    }
                    self.in_ms(50, 1_000, Pending::Launch(launch, Stage::Container));
                }
            }
            Stage::Container if !waited && !launch.park && self.chance(self.faults.no_room) => {
                self.figures.without_room += 1;
                self.waits_for_room(launch);
            }
            Stage::Container | Stage::Room => {
                let starts = !fails || self.chance(500);
                if starts {
                    self.container_starts(launch);
                }
                if fails {
                    let causes = [Cause::Container, Cause::DockerUnavailable, Cause::TimedOut];
                    let cause = causes[self.below(3) as usize];
                    self.launch_fails(&runner, cause, true);
                } else if let Some((started, _)) = self.containers[&runner].parked {
                    self.in_ms(0, 100, Pending::Event(Event::Parked { runner, started }));
                } else {
                    self.in_ms(0, 100, Pending::Event(Event::Launched { runner }));
                }
            }
        }
    }

    fn waits_for_room(&mut self, launch: Launch) {
        let (runner, free) = (launch.runner.clone(), self.below(3));
        let message = format!("{free} CPUs are free");
        let credentials_end = moment(self.credentials_end(&runner), 0).instant;
        self.apply(Event::NoRoom { runner: runner.clone(), message, credentials_end });
        if self.state.runner(&runner).is_some_and(|it| it.phase.waits_for_room()) {
            self.in_ms(500, 20_000, Pending::Launch(launch, Stage::Room));
        } else {
            self.launch_is_ended(launch);
        }
    }

    fn credentials_end(&self, runner: &str) -> u64 {
        self.launched.get(runner).copied().unwrap_or(self.now) + CREDENTIALS_LIFE_MS
    }

    /// The removal of a runner begins: the executor ends its launch if that waits for room. It
    /// may just have got room.
    fn end_launch(&mut self, runner: &str) {
        let waits = |(_, pending): &(&(u64, u64), &Pending)| matches!(pending, Pending::Launch(launch, Stage::Room) if launch.runner == runner);
        let Some((at, _)) = self.due.iter().find(waits) else { return };
        let at = *at;
        if let Some(Pending::Launch(launch, _)) = self.due.remove(&at) {
            self.launch_is_ended(launch);
        }
    }

    fn launch_is_ended(&mut self, launch: Launch) {
        let runner = launch.runner.clone();
        let starts = self.registrations.contains_key(&runner) && self.chance(300);
        let event = match starts {
            true => {
                self.container_starts(launch);
                Event::Launched { runner }
            }
            false => launch_failed(&runner, Cause::Container, 0, true),
        };
        self.in_ms(0, 1_000, Pending::Event(event));
    }

    fn launch_fails(&mut self, runner: &str, cause: Cause, may_exist: bool) {
        let retry_after_ms = if cause == Cause::RateLimited { 20_000 } else { 0 };
        if let Some(Runner { target, credential, .. }) = self.stored_runners.get(runner) {
            let (target, credential) = (target.clone(), *credential);
            self.fails_at(&target, credential);
        }
        let event = launch_failed(runner, cause, retry_after_ms, may_exist);
        let longest = if cause == Cause::TimedOut { 60_000 } else { 3_000 };
        self.in_ms(0, longest, Pending::Event(event));
    }

    /// Or it is parked.
    fn container_starts(&mut self, launch: Launch) {
        let Launch { runner, pool, target, parameters, devices, park, .. } = launch;
        let (machine, started) = (self.any_machine(), self.chance(700));
        let parked = park.then_some((started, self.settings.pools[pool].revision));
        let (exit_code, waits) = (None, park);
        let container =
            Container { pool, target, parameters, exit_code, machine, devices, parked, waits };
        self.containers.insert(runner.clone(), container);
        match parked {
            None => self.command_begins(runner),
            Some((true, _)) if self.chance(self.faults.dies_unused) => {
                self.in_ms(0, 200_000, Pending::Stops(runner, 137));
            }
            Some(_) => {}
        }
    }

    /// A line is written to a shell that waits, or a container started. Nothing happens if that was
    /// done before.
    pub(super) fn wake(&mut self, wake: Wake) {
        let Wake { runner, again, .. } = wake;
        let away = |it: &Container| self.machines.is_away(it.machine);
        let there = self.containers.get(&runner).filter(|it| it.exit_code.is_none() && !away(it));
        let waits = there.is_some_and(|it| it.waits);
        let failed = |cause: Cause, gone: bool| {
            let (runner, message) = (runner.clone(), "a fault".into());
            Pending::Event(Event::WakeFailed { runner, cause, message, gone })
        };
        if there.is_none() {
            let gone = !self.containers.get(&runner).is_some_and(away);
            return self.in_ms(0, 500, failed(Cause::Container, gone));
        }
        let fails = self.chance(self.faults.wake_fails);
        if waits && (!fails || self.chance(500)) {
            self.figures.woken += 1;
            if let Some(container) = self.containers.get_mut(&runner) {
                container.waits = false;
            }
            self.command_begins(runner.clone());
        }
        if fails && !again && self.chance(500) {
            let cause = [Cause::Container, Cause::DockerUnavailable][self.below(2) as usize];
            self.in_ms(0, 2_000, failed(cause, false));
        }
    }

    fn command_begins(&mut self, runner: String) {
        if !self.registrations.contains_key(&runner) {
            return self.in_ms(0, 2_000, Pending::Stops(runner, 1));
        }
        if self.chance(self.faults.dies_unused) {
            let code = [0, 1, 7][self.below(3) as usize];
            self.in_ms(0, 20_000, Pending::Stops(runner.clone(), code));
        }
        if !self.chance(self.faults.never_online) {
            self.in_ms(500, 8_000, Pending::Online(runner));
        }
    }

    pub(super) fn remove(&mut self, removal: Removal, began: u64) {
        let name = removal.runner.clone();
        let container_first = removal.container && removal.container_first;
        let stays = removal.container && self.chance(self.faults.container_stays);
        let container_removed = container_first && !stays;
        if container_removed {
            self.remove_container(&name);
        }
        let failed = |cause: Cause, deregistered: bool| {
            let message = "a fault".into();
            let failure = RemovalFailure {
                deregistered,
                container_removed,
                cause,
                message,
                retry_after_ms: 0,
            };
            Pending::Event(Event::RemovalFailed { runner: name.clone(), failure })
        };
        if removal.deregister {
            let refusal = self.refusal(&removal.target, None, Purpose::Removal, began);
            if let Some((cause, late)) = refusal {
                return self.in_ms(late, late, failed(cause, false));
            }
            if self.hangs(&removal.target, None) {
                return;
            }
            if self.chance(self.faults.call_fails) {
                self.fails_at(&removal.target, None);
                let causes = [Cause::GitHubUnavailable, Cause::Forbidden, Cause::RateLimited];
                let cause = causes[self.below(causes.len() as u64) as usize];
                return self.in_ms(0, 5_000, failed(cause, false));
            }
            if self.registrations.get(&name).is_some_and(|it| it.job.is_some()) {
                if container_first && stays {
                    return self.in_ms(0, 500, failed(Cause::Container, false));
                }
                self.in_ms(0, 500, Pending::Event(Event::RemovalRefused { runner: name }));
                return;
            }
            self.registrations.remove(&name);
        }
        if stays {
            let cause = [Cause::Container, Cause::DockerUnavailable][self.below(2) as usize];
            return self.in_ms(0, 5_000, failed(cause, removal.deregister));
        }
        if removal.container && !container_first {
            self.remove_container(&name);
        }
        if self.hangs(&removal.target, None) {
            return;
        }
        self.in_ms(0, 500, Pending::Event(Event::Removed { runner: name }));
    }

    pub(super) fn look_up(&mut self, target: ServerTarget) {
        let failed = |target: &ServerTarget, cause: Cause| {
            let (target, message) = (target.clone(), "a fault".into());
            Pending::Event(Event::LookUpFailed { target, cause, message, retry_after_ms: 0 })
        };
        if let Some((cause, late)) = self.refusal(&target, None, Purpose::LookUp, self.now) {
            return self.in_ms(late, late, failed(&target, cause));
        }
        if self.hangs(&target, None) {
            return;
        }
        if self.chance(self.faults.call_fails) {
            self.fails_at(&target, None);
            return self.in_ms(0, 1_000, failed(&target, Cause::GitHubUnavailable));
        }
        let runners = self
            .registrations
            .iter()
            .filter(|(_, it)| it.target == target)
            .map(|(name, it)| Registration {
                name: name.clone(),
                id: 1,
                online: it.online,
                busy: it.job.is_some(),
            })
            .collect();
        let requested_at = self.moment().instant;
        let event = Event::Registrations { target, runners, requested_at };
        self.in_ms(0, 1_000, Pending::Event(event));
    }

    /// Whether nothing is ever heard of a request.
    fn hangs(&mut self, target: &ServerTarget, credential: Option<usize>) -> bool {
        let hangs = self.chance(self.faults.hangs);
        if hangs {
            self.fails_at(target, credential);
        }
        hangs
    }

    fn look_up_failure(&mut self) -> LookUpFailure {
        match self.chance(500) {
            true => LookUpFailure::Unexpected,
            false => LookUpFailure::Unavailable { retry_after: Duration::ZERO },
        }
    }

    pub(super) fn look_up_run(
        &mut self,
        host: Host,
        run_id: u64,
        repository: String,
        target: &ServerTarget,
    ) {
        let of_run = |real: &&RealJob| (real.job.key.host, real.job.run_id) == (host, run_id);
        let job = self.jobs.values().find(of_run).expect("a run of no job").job.clone();
        let failed =
            |repository, failure| Event::RunLookUpFailed { host, run_id, repository, failure };
        if let Some((cause, late)) = self.job_refusal(&job, target) {
            let failure = match cause {
                Cause::Forbidden => LookUpFailure::Refused,
                Cause::UnexpectedResponse | Cause::Rejected => LookUpFailure::Unexpected,
                _ => LookUpFailure::Unavailable { retry_after: Duration::ZERO },
            };
            return self.in_ms(late, late, Pending::Event(failed(repository, failure)));
        }
        if self.hangs(target, None) {
            return;
        }
        if self.chance(self.faults.call_fails) {
            let failure = self.look_up_failure();
            return self.apply(failed(repository, failure));
        }
        let from_fork = job.from_fork.expect("every job has an origin");
        let origin = Some(RunOrigin { visibility: job.visibility, from_fork });
        let found = Event::RunFound { host, run_id, repository, origin };
        self.in_ms(0, 1_000, Pending::Event(found));
    }

    pub(super) fn look_up_job(&mut self, key: JobKey, target: &ServerTarget) {
        let job = self.jobs[&key].job.clone();
        if let Some((cause, late)) = self.job_refusal(&job, target) {
            let failure = match cause {
                Cause::Forbidden => LookUpFailure::Refused,
                Cause::UnexpectedResponse | Cause::Rejected => LookUpFailure::Unexpected,
                _ => LookUpFailure::Unavailable { retry_after: Duration::ZERO },
            };
            let failed = Event::JobLookUpFailed { job: key, failure };
            return self.in_ms(late, late, Pending::Event(failed));
        }
        if self.hangs(target, None) {
            return;
        }
        if self.chance(self.faults.call_fails) {
            let (job, failure) = (self.jobs[&key].job.key, self.look_up_failure());
            return self.apply(Event::JobLookUpFailed { job, failure });
        }
        let RealJob { job, state, runner, .. } = &self.jobs[&key];
        let (job, state, mut runner) = (job.key, *state, runner.clone());
        if self.chance(self.faults.unnamed) {
            runner.clear();
        }
        self.figures.jobs_looked_up += 1;
        if self.stored_jobs[&key].0 < state {
            self.stored_jobs.insert(key, (state, runner.clone()));
        }
        self.in_ms(0, 1_000, Pending::Event(Event::JobFound { job, state, runner }));
    }

    /// Store first, then the planner, like the intake.
    pub(super) fn receive(&mut self, webhook: &Webhook) {
        let Webhook { job: key, state, runner } = webhook;
        let advanced = self.stored_jobs.get(key).is_none_or(|(stored, _)| stored < state);
        if advanced {
            if !self.stored_jobs.contains_key(key) {
                self.jobs.get_mut(key).unwrap().job.queued_at = self.moment().wall;
            }
            if *state == JobState::InProgress {
                self.stored_starts.insert(*key, self.moment().wall);
            }
            self.stored_jobs.insert(*key, (*state, runner.clone()));
            self.apply(self.event(*key));
        }
    }

    fn event(&self, key: JobKey) -> Event {
        // A webhook does not have it.
        let from_fork = self.stored_origins.get(&key).copied();
        let job = Job { from_fork, ..self.jobs[&key].job.clone() };
        let (state, runner) = self.stored_jobs[&key].clone();
        match state {
            JobState::Queued => Event::JobQueued(job),
            JobState::InProgress => Event::JobStarted { job, runner },
            JobState::Completed => Event::JobCompleted { job, runner },
        }
    }

    pub(super) fn adopted(&self, name: &str, container: &Container) -> Adopted {
        Adopted {
            runner: name.into(),
            pool: self.settings.pools[container.pool].name.clone(),
            provider: 0,
            target: container.target.clone(),
            registration_id: None,
            job: None,
            created_at: self.moment().wall,
            container: match container.exit_code {
                _ if self.machines.is_away(container.machine) => AdoptedContainer::Unreachable,
                None if container.waits
                    && container.parked.is_some_and(|(started, _)| !started) =>
                {
                    AdoptedContainer::Created
                }
                None => AdoptedContainer::Running,
                Some(code) => AdoptedContainer::Exited(code.into()),
            },
            parameters: container.parameters.clone(),
            devices: container.devices.clone(),
            parked: container.parked.map(|(started, revision)| Parked {
                started,
                revision,
                woken: false,
            }),
        }
    }

    /// The sidecar is killed and started again, and loses its memory.
    pub(super) fn restart(&mut self) {
        self.figures.restarts += 1;
        self.troubles.forget();
        self.left_to_github.extend(self.left.drain());
        self.due.retain(|_, pending| {
            use Pending::{GivenUp, JobEnds, Online, Stops, Webhook};
            matches!(pending, Webhook(_) | Online(_) | JobEnds(_) | Stops(..) | GivenUp(_))
        });
        self.state = State::new(self.settings.clone(), self.random.next());
        for (index, pool) in self.settings.pools.clone().into_iter().enumerate() {
            if let Some(min_idle) = self.scheduled.get(&pool.name).copied() {
                self.apply(Event::MinIdle { pool: index, min_idle });
            }
        }
        let stored: Vec<JobKey> = self
            .stored_jobs
            .iter()
            .filter(|(_, (state, _))| *state < JobState::Completed)
            .map(|(key, _)| *key)
            .collect();
        for key in stored {
            let started =
                self.stored_starts.get(&key).map(|started| self.moment().at_wall(*started));
            let now = started.unwrap_or(self.moment());
            let event = self.event(key);
            assert_eq!(plan(&mut self.state, event, now), []);
            // To the new process, the job has run for as long as the wall clock says.
            let runner = &self.jobs[&key].runner;
            if let (Some(begun), Some(at)) = (self.busy_since.get_mut(runner), started) {
                let at = at.instant.duration_since(Instant::from_millis(0)).as_millis();
                *begun = (*begun).min(at as u64);
            }
        }
        let mut left: Vec<Adopted> = Vec::new();
        for (name, runner) in &self.stored_runners {
            let container = self.containers.get(name).map(|it| self.adopted(name, it));
            let (container, devices, parked) = match container {
                Some(Adopted { container, devices, parked, .. }) => (container, devices, parked),
                None => (AdoptedContainer::Missing, Vec::new(), None),
            };
            let parked = parked.map(|parked| Parked { woken: runner.woken, ..parked });
            left.push(Adopted {
                runner: name.clone(),
                pool: runner.pool.clone(),
                provider: 0,
                target: runner.target.clone(),
                registration_id: runner.registration_id,
                job: runner.job,
                created_at: runner.created.wall,
                container,
                parameters: runner.parameters.clone(),
                devices,
                parked,
            });
        }
        for (name, container) in &self.containers {
            if !self.stored_runners.contains_key(name) {
                left.push(self.adopted(name, container));
            }
        }
        for adopted in left {
            self.apply(Event::Adopted(adopted));
        }
        self.announce_machine();
        self.apply(Event::Recovered { provider: 0 });
    }

    /// What the machine has for runners from now on, disk aside.
    pub(in crate::plan) fn set_machine(&mut self, total: Resources) {
        let Resources { memory_mib, cpu_millis } = total;
        self.machine.memory_mib = Some(memory_mib);
        self.machine.cpu_millis = Some(cpu_millis);
        self.announce_machine();
    }

    pub(super) fn set_disk(&mut self, disk: Option<Disk>) {
        self.machine.disk = disk;
        self.announce_machine();
    }

    fn announce_machine(&mut self) {
        self.apply(Event::Machine { provider: 0, machine: self.machine });
    }

    /// Reloads the same pools in another order.
    pub(super) fn reload(&mut self) {
        self.apply(Event::Tick);
        self.settings.pools.reverse();
        let last = self.settings.pools.len() - 1;
        for container in self.containers.values_mut() {
            container.pool = last - container.pool;
        }
        for runner in self.registrations.values_mut() {
            runner.pool = last - runner.pool;
        }
        for pending in self.due.values_mut() {
            if let Pending::Launch(launch, _) = pending {
                launch.pool = last - launch.pool;
            }
        }
        // The sidecar applies the schedule first.
        let mut pools = self.settings.pools.clone();
        for pool in &mut pools {
            pool.min_idle = self.scheduled.get(&pool.name).copied().unwrap_or(pool.min_idle);
        }
        let before = self.figures.launches;
        self.apply(Event::Pools(pools));
        // With a limit for each repository, the order of the pools decides.
        if self.settings.max_per_repository == usize::MAX {
            assert_eq!(self.figures.launches, before, "a reload that changes nothing launches");
        }
    }

    pub(in crate::plan) fn apply(&mut self, event: Event) {
        let again = (self.thorough && self.chance(200)).then(|| event.clone());
        let tick = matches!(event, Event::Tick);
        let now = self.moment();
        let actions = plan(&mut self.state, event, now);
        let quiet = tick && actions.is_empty();
        for action in actions {
            self.carry_out(action);
        }
        if tick && self.thorough && self.chance(20) {
            self.check_announced_reasons();
        }
        if let Some(event) = again {
            let described = format!("{event:?}");
            let actions = plan(&mut self.state, event, now);
            assert_eq!(actions, [], "repeated: {described}");
        }
        // Most ticks change nothing; only some of those are checked.
        if !quiet || self.chance(50) {
            self.check();
        }
    }

    fn carry_out(&mut self, action: Action) {
        let called = match &action {
            Action::Launch(Launch { target, .. })
            | Action::Remove(Removal { target, deregister: true, .. })
            | Action::LookUp(target)
            | Action::LookUpJob { target, .. }
            | Action::LookUpRun { target, .. } => Some(target.clone()),
            _ => None,
        };
        called.into_iter().for_each(|target| *self.figures.calls.entry(target).or_default() += 1);
        match action {
            Action::Launch(launch) => {
                let record = self.state.runner(&launch.runner).unwrap().clone();
                self.figures.launches += 1;
                let before = self.launched.insert(launch.runner.clone(), self.now);
                assert!(before.is_none(), "launched twice");
                self.stored_runners.insert(launch.runner.clone(), record);
                self.in_ms(0, 100, Pending::Launch(launch, Stage::Accepted));
            }
            Action::Wake(wake) => {
                let record = self.state.runner(&wake.runner).unwrap().clone();
                assert!(record.woken, "{record:?}");
                self.stored_runners.insert(wake.runner.clone(), record);
                self.in_ms(0, 100, Pending::Wake(wake));
            }
            Action::Remove(removal) => {
                self.check_removal(&removal);
                self.check_lost(&removal.runner);
                self.end_launch(&removal.runner);
                self.in_ms(10, 500, Pending::Remove(removal, self.now));
            }
            Action::LookUp(target) => self.in_ms(100, 1_000, Pending::LookUp(target)),
            Action::LookUpJob { job, target, .. } => {
                self.in_ms(100, 1_000, Pending::LookUpJob(job, target));
            }
            Action::LookUpRun { host, run_id, repository, target } => {
                let look_up = Pending::LookUpRun { host, run_id, repository, target };
                self.in_ms(100, 1_000, look_up);
            }
            Action::RecordOrigins(origins) => {
                for (key, origin) in origins {
                    assert_eq!(self.jobs[&key].job.from_fork, Some(origin.from_fork));
                    self.stored_origins.insert(key, origin.from_fork);
                }
            }
            Action::Deregister { runner, target, .. } => {
                if self.refusal(&target, None, Purpose::LookUp, self.now).is_some() {
                    return;
                }
                self.registrations.remove(&runner);
                let event = Event::Deregistered { runner, target };
                self.in_ms(100, 1_000, Pending::Event(event));
            }
            Action::GiveUpJob { job, .. } => {
                let state = self.jobs[&job].state;
                let hidden = self.refused_anywhere_since(self.now - 15_000);
                assert!(hidden || state == JobState::Completed, "{job} is given up");
                if state == JobState::Queued {
                    self.conclude(job);
                }
                self.stored_jobs.insert(job, (JobState::Completed, String::new()));
            }
            Action::Explain(reasons) => self.explained.extend(reasons),
            Action::Record(name) => {
                let record =
                    self.state.runner(&name).expect("a record of an unknown runner").clone();
                if let Some(Runner { job: Some(before), .. }) = self.stored_runners.get(&name) {
                    assert_eq!(record.job, Some(*before), "{name} serves two jobs");
                }
                self.stored_runners.insert(name, record);
            }
            Action::Forget(runner, why) => {
                self.figures.machines_lost += u64::from(why == EndReason::MachineLost);
                let launched = self.launched.remove(&runner.name);
                assert!(launched.is_some(), "{} ended twice", runner.name);
                assert!(!self.containers.contains_key(&runner.name), "{runner:?} runs");
                self.stored_runners.remove(&runner.name);
                if let Phase::Removing(removing) = &runner.phase
                    && removing.leaves_registration()
                {
                    self.left.insert(runner.name);
                }
            }
        }
    }
}

fn launch_failed(runner: &str, cause: Cause, retry_after_ms: u64, may_exist: bool) -> Event {
    let (runner, message) = (runner.to_owned(), "a fault".into());
    Event::LaunchFailed { runner, cause, message, retry_after_ms, may_exist }
}
