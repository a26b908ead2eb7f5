//! Owns the planner's state: one loop over events, ticks and shutdown.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use crate::{
    clock,
    execute::Executor,
    metrics,
    plan::{self, Action, Event, Phase, Runner, State, Why},
    schedule::Timetable,
    snapshot::Snapshot,
    store::{self, RunnerRecord, Store},
};

const TICK: Duration = Duration::from_secs(1);
const SURVEY_EVERY: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_secs(300);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Inputs that may wait for their turn. Senders wait beyond it; nothing is dropped.
pub(crate) const WAITING_INPUTS_MAX: usize = 1024;

pub(crate) enum Input {
    Event(Event),
    /// What is going on, for people to look at.
    Look(oneshot::Sender<Snapshot>),
    /// [`Event::Drain`], and whether it will outlast a restart.
    Drain {
        pool: Option<usize>,
        draining: bool,
        reply: oneshot::Sender<Result<(), store::Error>>,
    },
}

pub(crate) struct Driver {
    state: State,
    store: Store,
    executor: Executor,
    timetables: Vec<Timetable>,
    inputs: mpsc::Receiver<Input>,
    tasks: TaskTracker,
}

impl Driver {
    pub(crate) fn new(
        state: State,
        store: Store,
        executor: Executor,
        timetables: Vec<Timetable>,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        Self { state, store, executor, timetables, inputs, tasks: TaskTracker::new() }
    }

    /// Runs until `shutdown`; then finishes what is being launched or removed, for
    /// `grace` at most. Runners that work are left working: the next start adopts them.
    pub(crate) async fn run(mut self, shutdown: CancellationToken, grace: Duration) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune = time::interval(PRUNE_EVERY);
        let mut survey = time::interval(SURVEY_EVERY);
        let mut sweep = time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {
                    self.follow_timetables();
                    self.handle(Event::Tick);
                }
                _ = survey.tick() => {
                    self.tasks.spawn(self.executor.clone().survey());
                }
                _ = sweep.tick() => {
                    self.tasks.spawn(self.executor.clone().sweep());
                }
                _ = prune.tick() => {
                    let store = self.store.clone();
                    self.tasks.spawn(async move {
                        if let Err(error) = store.prune(clock::now()).await {
                            warn!(%error, "old records stay");
                        }
                    });
                }
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
            }
        }
        self.finish(grace).await;
    }

    async fn finish(&mut self, grace: Duration) {
        info!(launching = self.state.launching(), "shutting down");
        // No new launches; those in flight end in an event as always.
        self.handle(Event::Pause);
        self.tasks.close();
        let deadline = Instant::now() + grace;
        loop {
            tokio::select! {
                () = self.tasks.wait() => match self.inputs.try_recv() {
                    Ok(input) => self.take(input),
                    Err(_) => return,
                },
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = time::sleep_until(deadline) => {
                    let unfinished = self.tasks.len();
                    warn!(unfinished, "grace period over; the next start cleans up");
                    return;
                }
            }
        }
    }

    fn follow_timetables(&mut self) {
        let now = clock::now();
        let pools = &self.state.settings().pools;
        let changes: Vec<(usize, usize)> = self
            .timetables
            .iter()
            .map(|timetable| (timetable.pool, timetable.min_idle(now)))
            .filter(|(pool, min_idle)| pools[*pool].min_idle != *min_idle)
            .collect();
        for (pool, min_idle) in changes {
            info!(pool = self.state.settings().pools[pool].name, min_idle, "by schedule");
            self.handle(Event::MinIdle { pool, min_idle });
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            // Whoever asked may have gone away.
            Input::Look(reply) => {
                let budgets = self.executor.budgets();
                let snapshot = Snapshot { budgets, ..Snapshot::of(&self.state, clock::now()) };
                drop(reply.send(snapshot));
            }
            Input::Drain { pool, draining, reply } => {
                let name = pool.map(|pool| self.state.settings().pools[pool].name.clone());
                info!(pool = name, draining, "told to drain or to resume");
                let saved = self.store.save_draining(name, draining);
                // At once, whatever the disk says: whoever drains has a reason.
                self.handle(Event::Drain { pool, draining });
                self.tasks.spawn(async move { drop(reply.send(saved.await)) });
            }
        }
    }

    fn handle(&mut self, event: Event) {
        if !matches!(event, Event::Tick | Event::Survey { .. }) {
            debug!(?event, "planning");
        }
        for action in plan::plan(&mut self.state, event, clock::now()) {
            match action {
                Action::Launch(launch) => {
                    let record = self.state.runner(&launch.runner).map(record);
                    let Some(record) = record else { continue };
                    self.tasks.spawn(self.executor.clone().launch(launch, record));
                }
                Action::Remove(removal) => {
                    self.tasks.spawn(self.executor.clone().remove(removal));
                }
                Action::LookUp(target) => {
                    self.tasks.spawn(self.executor.clone().look_up(target));
                }
                Action::LookUpJob { job, repository, target } => {
                    self.tasks.spawn(self.executor.clone().look_up_job(job, repository, target));
                }
                Action::Explain(reasons) => {
                    let saved = self.store.save_waiting(reasons);
                    self.tasks.spawn(async move {
                        if let Err(error) = saved.await {
                            warn!(%error, "why jobs wait is not up to date in the store");
                        }
                    });
                }
                Action::Record(name) => {
                    if let Some(runner) = self.state.runner(&name) {
                        self.save(record(runner));
                    }
                }
                Action::Forget(runner, why) => {
                    if why.is_failure() {
                        warn!(runner = runner.name, pool = runner.pool, %why, "runner gone");
                    } else {
                        info!(runner = runner.name, pool = runner.pool, %why, "runner gone");
                    }
                    metrics::runner_gone(&runner.pool, why);
                    self.save(gone(&runner, why));
                }
            }
        }
    }

    fn save(&self, record: RunnerRecord) {
        let saved = self.store.save_runner(record);
        self.tasks.spawn(async move {
            // What runs is its own record, by its labels; the store's is the shorter way.
            if let Err(error) = saved.await {
                error!(%error, "a runner's record is not up to date");
            }
        });
    }
}

fn record(runner: &Runner) -> RunnerRecord {
    RunnerRecord {
        name: runner.name.clone(),
        pool: runner.pool.clone(),
        target: runner.target.to_string(),
        phase: runner.phase.as_str().into(),
        created_at: runner.created_at,
        started_at: matches!(runner.phase, Phase::Starting | Phase::Idle | Phase::Busy)
            .then_some(runner.since),
        registration_id: runner.registration_id,
        job: runner.job,
        why: match &runner.phase {
            Phase::Leaving(leaving) => Some(leaving.why.to_string()),
            _ => None,
        },
        failed: false,
        log: None,
        gone_at: None,
    }
}

fn gone(runner: &Runner, why: Why) -> RunnerRecord {
    RunnerRecord {
        phase: "gone".into(),
        why: Some(why.to_string()),
        failed: why.is_failure(),
        gone_at: Some(clock::now()),
        ..record(runner)
    }
}
