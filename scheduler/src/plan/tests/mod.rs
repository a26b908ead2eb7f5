//! What the planner promises, one behaviour a test; then a random walk and a
//! simulation of weeks over a small model of GitHub and Docker.

mod adoption;
mod backoff;
mod demand;
mod jobs;
mod life;
mod recount;
mod reload;
mod removal;
mod simulation;
mod waiting;
mod walk;
mod world;

use super::{
    pool::tests::{job, pool},
    *,
};
use recount::recount;

/// A planner at a moment in time.
struct Plan {
    state: State,
    now: UnixMs,
}

impl Plan {
    fn new(pools: Vec<Pool>) -> Self {
        Self::with(settings(pools))
    }

    fn with(settings: Settings) -> Self {
        let mut plan = Self { state: State::new(settings, 1), now: 1_000_000 };
        plan.tell(Event::Recovered);
        plan
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = plan(&mut self.state, event, self.now);
        recount(&self.state);
        actions
    }

    /// Tells an event that must not lead to anything.
    fn tell_in_vain(&mut self, event: Event) {
        let told = format!("{event:?}");
        assert_eq!(self.tell(event), [], "after {told}");
    }

    /// Ticks once a second for so long.
    fn wait(&mut self, ms: u64) -> Vec<Action> {
        let until = self.now + ms;
        let mut actions = Vec::new();
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            actions.extend(plan(&mut self.state, Event::Tick, self.now));
        }
        recount(&self.state);
        actions
    }

    fn queue(&mut self, id: u64) -> Vec<Action> {
        self.tell(Event::JobQueued(linux(id)))
    }

    fn start(&mut self, id: u64, runner: &str) -> Vec<Action> {
        self.tell(Event::JobStarted { job: linux(id), runner: runner.into() })
    }

    fn complete(&mut self, id: u64, runner: &str) -> Vec<Action> {
        self.tell(Event::JobCompleted { job: linux(id), runner: runner.into() })
    }

    fn exit(&mut self, runner: &str, exit_code: i64) -> Vec<Action> {
        self.tell(Event::ContainerExited { runner: runner.into(), exit_code })
    }

    fn fail(&mut self, runner: &str, cause: Cause) -> Vec<Action> {
        self.tell(Event::LaunchFailed {
            runner: runner.into(),
            cause,
            message: "said so".into(),
            retry_after_ms: 0,
            may_run: false,
        })
    }

    fn launched(&mut self, runner: &str) -> Vec<Action> {
        self.tell(Event::Launched { runner: runner.into() })
    }

    /// GitHub lists the runner at its target, and the others as they were.
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
        self.tell(Event::Registrations { target, runners })
    }

    /// A runner launched for this job, and how far it came.
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

    /// Without a job left: it was cancelled.
    fn surplus(&mut self, id: u64) -> String {
        let runner = self.idle(id);
        self.complete(id, "");
        runner
    }

    /// What a tick leads to, apart from telling why jobs wait.
    fn tick(&mut self) -> Vec<Action> {
        let mut actions = self.tell(Event::Tick);
        actions.retain(|action| !matches!(action, Action::Explain(_)));
        actions
    }

    fn phase(&self, runner: &str) -> &'static str {
        self.state.runner(runner).map_or("gone", |runner| runner.phase.as_str())
    }

    fn why(&self, runner: &str) -> EndReason {
        match &self.state.runner(runner).unwrap().phase {
            Phase::Removing(leaving) => leaving.why,
            phase => panic!("{runner} is {phase:?}"),
        }
    }

    fn reason(&self, id: u64) -> Waiting {
        let mut reasons: Vec<Waiting> = self
            .state
            .waiting(self.now)
            .into_iter()
            .filter(|(job, _)| job.key.id == id)
            .map(|(_, reason)| reason)
            .collect();
        assert_eq!(reasons.len(), 1, "job {id}: {reasons:?}");
        reasons.remove(0)
    }
}

fn settings(pools: Vec<Pool>) -> Settings {
    Settings {
        pools,
        credentials: vec![credential("github", TargetPattern::Any)],
        max: usize::MAX,
        max_per_repository: usize::MAX,
        instance: "edge".into(),
    }
}

fn credential(name: &str, pattern: TargetPattern) -> Credential {
    Credential { name: name.into(), targets: vec![pattern] }
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

fn look_ups(actions: &[Action]) -> Vec<Target> {
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
