//! Unit tests, one behaviour each; a random walk and a simulation of weeks over a small model
//! of GitHub and Docker.

mod adoption;
mod backoff;
mod clock;
mod demand;
mod devices;
mod held;
mod isolation;
mod job_look_up;
mod jobs;
mod label_parameters;
mod life;
mod machine;
mod order;
mod origin;
mod parked;
mod recount;
mod refusals;
mod reload;
mod removal;
mod room;
mod servers;
mod shared_targets;
mod simulation;
mod spill;
mod unreachable;
mod waiting;
mod walk;
mod world;

use super::{
    pool::tests::{job, pool},
    *,
};
use recount::recount;

/// What a provider says that has no room.
const NO_CPUS: &str = "insufficient resources on 3 nodes";

/// A planner, and the time.
struct Plan {
    state: State,
    /// Milliseconds on the monotonic clock, and on the wall unless that clock was set.
    now: u64,
    /// How far the wall clock was set forward.
    clock_step: i64,
}

impl Plan {
    fn new(pools: Vec<Pool>) -> Self {
        Self::with(settings(pools))
    }

    fn with(settings: Settings) -> Self {
        let state = State::new(settings, 1);
        let mut plan = Self { state, now: 1_000_000, clock_step: 0 };
        plan.apply(Event::Recovered { provider: 0 });
        plan
    }

    /// A process that has just started.
    fn unrecovered(pools: Vec<Pool>) -> Self {
        Self::unrecovered_with(settings(pools))
    }

    fn unrecovered_with(settings: Settings) -> Self {
        Self { state: State::new(settings, 1), now: 1_000_000, clock_step: 0 }
    }

    fn moment(&self) -> Moment {
        moment(self.now, self.clock_step)
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        let now = self.moment();
        let actions = plan(&mut self.state, event, now);
        recount(&self.state);
        actions
    }

    fn apply_without_effect(&mut self, event: Event) {
        let described = format!("{event:?}");
        assert_eq!(self.apply(event), [], "after {described}");
    }

    /// Ticks once a second.
    fn wait(&mut self, ms: u64) -> Vec<Action> {
        let until = self.now + ms;
        let mut actions = Vec::new();
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            let now = self.moment();
            actions.extend(plan(&mut self.state, Event::Tick, now));
        }
        recount(&self.state);
        actions
    }

    fn queue(&mut self, id: u64) -> Vec<Action> {
        self.apply(Event::JobQueued(linux(id)))
    }

    fn start(&mut self, id: u64, runner: &str) -> Vec<Action> {
        self.apply(Event::JobStarted { job: linux(id), runner: runner.into() })
    }

    fn complete(&mut self, id: u64, runner: &str) -> Vec<Action> {
        self.apply(Event::JobCompleted { job: linux(id), runner: runner.into() })
    }

    fn exit(&mut self, runner: &str, exit_code: i64) -> Vec<Action> {
        self.apply(Event::ContainerExited { runner: runner.into(), status: exit_code.into() })
    }

    fn fail(&mut self, runner: &str, cause: Cause) -> Vec<Action> {
        self.apply(Event::LaunchFailed {
            runner: runner.into(),
            cause,
            message: "no reason".into(),
            retry_after_ms: 0,
            may_exist: false,
        })
    }

    fn progress(&mut self, runner: &str, stage: Stage) -> Vec<Action> {
        self.apply(Event::Progress { runner: runner.into(), stage })
    }

    /// The launch waits for room, with credentials that never end.
    fn no_room(&mut self, runner: &str) -> Vec<Action> {
        self.no_room_until(runner, NO_CPUS, Instant::MAX)
    }

    fn no_room_until(
        &mut self,
        runner: &str,
        message: &str,
        credentials_end: Instant,
    ) -> Vec<Action> {
        let (runner, message) = (runner.into(), message.into());
        self.apply(Event::NoRoom { runner, message, credentials_end })
    }

    fn launched(&mut self, runner: &str) -> Vec<Action> {
        self.apply(Event::Launched { runner: runner.into() })
    }

    /// GitHub lists the runner at its target, and the others unchanged.
    fn list(&mut self, runner: &str, online: bool, busy: bool) -> Vec<Action> {
        let target = self.state.runner(runner).unwrap().target.clone();
        let listed = |other: &Runner| {
            let this = other.name == runner;
            Registration {
                name: other.name.clone(),
                id: 7,
                online: if this { online } else { other.phase == Phase::Idle },
                busy: if this { busy } else { other.phase == Phase::Busy },
            }
        };
        let runners = self.state.runners().filter(|it| it.target == target).map(listed).collect();
        let requested_at = self.moment().instant;
        self.apply(Event::Registrations { target, runners, requested_at })
    }

    /// The runner that is launched for this job.
    fn provisioning(&mut self, id: u64) -> String {
        one_launch(&self.queue(id))
    }

    fn starting(&mut self, id: u64) -> String {
        let runner = self.provisioning(id);
        self.launched(&runner);
        runner
    }

    fn idle(&mut self, id: u64) -> String {
        let runner = self.starting(id);
        self.list(&runner, true, false);
        assert_eq!(self.phase(&runner), "idle");
        runner
    }

    fn busy(&mut self, id: u64) -> String {
        let runner = self.starting(id);
        self.start(id, &runner);
        assert_eq!(self.phase(&runner), "busy");
        runner
    }

    /// An idle runner whose job was cancelled.
    fn surplus(&mut self, id: u64) -> String {
        let runner = self.idle(id);
        self.complete(id, "");
        runner
    }

    /// The actions of a tick, without waiting reasons.
    fn tick(&mut self) -> Vec<Action> {
        let mut actions = self.apply(Event::Tick);
        actions.retain(|action| !matches!(action, Action::Explain(_)));
        actions
    }

    fn phase(&self, runner: &str) -> &'static str {
        self.state.runner(runner).map_or("gone", |runner| runner.phase.as_str())
    }

    fn why(&self, runner: &str) -> EndReason {
        match &self.state.runner(runner).unwrap().phase {
            Phase::Removing(removing) => removing.reason,
            phase => panic!("{runner} is {phase:?}"),
        }
    }

    fn reason(&self, id: u64) -> Waiting {
        let mut reasons: Vec<Waiting> = self
            .state
            .waiting(self.moment().instant)
            .into_iter()
            .filter(|(job, _)| job.key.id == id)
            .map(|(_, reason)| reason)
            .collect();
        assert_eq!(reasons.len(), 1, "job {id}: {reasons:?}");
        reasons.remove(0)
    }
}

/// The monotonic clock shows `ms`, the wall clock is set `step` ms ahead of it.
fn moment(ms: u64, step: i64) -> Moment {
    let instant = Instant::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    Moment { instant, wall: ms.saturating_add_signed(step) }
}

fn missing_label(label: &str, closest: &str) -> NoMatch {
    NoMatch::MissingLabels { labels: vec![label.into()], closest: closest.into() }
}

fn settings(pools: Vec<Pool>) -> Settings {
    Settings {
        pools,
        credentials: vec![credential("github", TargetPattern::Any)],
        providers: vec!["Docker".into()],
        devices: Vec::new(),
        max: usize::MAX,
        max_per_repository: usize::MAX,
        order: Order::Fair,
        instance: "edge".into(),
        term: None,
    }
}

fn credential(name: &str, pattern: TargetPattern) -> Credential {
    Credential { name: name.into(), host: Host::default(), targets: vec![pattern] }
}

fn linux(id: u64) -> Job {
    job(id, &["linux"])
}

fn linux_pool(max: usize) -> Pool {
    Pool { max, ..pool("linux", &["linux"]) }
}

fn at(repository: &str, job: Job) -> Job {
    Job { repository: repository.into(), ..job }
}

fn launches(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Launch(launch) => Some(launch.runner.clone()),
            _ => None,
        })
        .collect()
}

fn one_launch(actions: &[Action]) -> String {
    let mut launches = launches(actions);
    assert_eq!(launches.len(), 1, "{actions:?}");
    launches.remove(0)
}

fn removals(actions: &[Action]) -> Vec<&Removal> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Remove(removal) => Some(removal),
            _ => None,
        })
        .collect()
}

fn one_removal(actions: &[Action]) -> Removal {
    let removals = removals(actions);
    assert_eq!(removals.len(), 1, "{actions:?}");
    removals[0].clone()
}

fn look_ups(actions: &[Action]) -> Vec<ServerTarget> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::LookUp(target) => Some(target.clone()),
            _ => None,
        })
        .collect()
}

fn removed(runner: &str) -> Event {
    Event::Removed { runner: runner.into() }
}

/// Neither the registration nor the container is removed.
fn removal_failed(runner: &str, cause: Cause) -> Event {
    let failure = RemovalFailure {
        deregistered: false,
        container_removed: false,
        cause,
        message: format!("{cause:?}"),
        retry_after_ms: 0,
    };
    Event::RemovalFailed { runner: runner.into(), failure }
}
