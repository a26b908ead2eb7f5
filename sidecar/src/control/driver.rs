//! Owns the planner's state: one loop over commands, ticks and shutdown.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{error, info, warn};

use crate::{
    config::PoolConfig,
    control::{
        clock,
        command::{Answer, Command, CommandError, Readiness, Retried},
        event_log,
        executor::{Executor, usage::Sampling},
        figures::Figures,
        leadership::Leadership,
        snapshot::{NodeView, QueuedJob, RunnerView, Snapshot},
        unmatched::UnmatchedLabels,
    },
    notifications::{Kind, Notice, Notifier},
    provider::Node,
    store::{self, RunnerRecord, Store},
    telemetry::metrics,
};
use edgerunner_scheduler::{
    model::{Cause, JobKey, JobState, Moment},
    plan::{
        self, Action, AdoptedContainer, EndReason, Event, Phase, Pool, Quota, Runner, State,
        TOO_OLD_EXIT_CODE,
    },
    schedule::Timetable,
};

const TICK: Duration = Duration::from_secs(1);
const SURVEY_EVERY: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Images and versions of runners that are due are asked for.
const KEEP_YOUNG_EVERY: Duration = Duration::from_secs(60);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// The webhook of a job that ended well may arrive after the exit of its runner.
const JOB_REPORTED_WITHIN: Duration = Duration::from_secs(15);
/// Lost jobs are looked for whose run is over.
const RERUN_EVERY: Duration = Duration::from_secs(20);
/// What runners use is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// Work that nothing waits for, not even the shutdown.
type Background = Option<AbortOnDropHandle<()>>;

pub(crate) struct Driver {
    state: State,
    store: Store,
    executor: Executor,
    timetables: Vec<Timetable>,
    /// Publishes the current pools.
    pools: watch::Sender<Arc<[Pool]>>,
    commands: mpsc::Receiver<Command>,
    leadership: Leadership,
    tasks: TaskTracker,
    /// Records that could not be stored. They are stored again at the next tick, as they are then.
    unsaved: Arc<Mutex<Vec<RunnerRecord>>>,
    /// When each container started whose runner GitHub does not list as online yet.
    starting: HashMap<String, Instant>,
    unmatched: UnmatchedLabels,
    /// As the planner knows them.
    quotas: Vec<Quota>,
    /// As their provider last listed them.
    nodes: Vec<Node>,
    /// Asks registries and GitHub for what is due.
    keeps_young: Background,
    /// Reports what machines have for runners, and makes space on their disks.
    keeps_machines: Background,
    /// Measures what runners use.
    samples: Background,
    notifier: Notifier,
    reruns_lost: bool,
    /// Asks GitHub to run lost jobs again.
    reruns: Background,
}

impl Driver {
    pub(crate) fn new(
        state: State,
        store: Store,
        executor: Executor,
        timetables: Vec<Timetable>,
        pools: watch::Sender<Arc<[Pool]>>,
        commands: mpsc::Receiver<Command>,
        leadership: Leadership,
    ) -> Self {
        let (tasks, starting) = (TaskTracker::new(), HashMap::new());
        let unsaved = Arc::default();
        let (unmatched, quotas, nodes) = (UnmatchedLabels::default(), Vec::new(), Vec::new());
        Self {
            state,
            store,
            executor,
            timetables,
            pools,
            commands,
            leadership,
            tasks,
            unsaved,
            starting,
            unmatched,
            quotas,
            nodes,
            keeps_young: None,
            keeps_machines: None,
            samples: None,
            notifier: Notifier::off(),
            reruns_lost: false,
            reruns: None,
        }
    }

    /// Sends messages about runners that die during their job.
    pub(crate) fn notifying(self, notifier: Notifier) -> Self {
        Self { notifier, ..self }
    }

    /// Has GitHub run jobs again that ended because their runner did.
    pub(crate) fn rerunning_lost(self, reruns_lost: bool) -> Self {
        Self { reruns_lost, ..self }
    }

    /// Runs until `shutdown`; then finishes launches and removals in progress, for at most
    /// `grace`. Busy runners keep running: the next start adopts them.
    pub(crate) async fn run(mut self, shutdown: CancellationToken, grace: Duration) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune = time::interval(PRUNE_EVERY);
        let mut survey = time::interval(SURVEY_EVERY);
        let mut sweep = time::interval(SWEEP_EVERY);
        let mut keep_young = time::interval(KEEP_YOUNG_EVERY);
        let mut sample = time::interval(SAMPLE_EVERY);
        let mut rerun = time::interval(RERUN_EVERY);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {
                    self.apply_schedules();
                    self.report_quotas();
                    self.save_again();
                    self.handle(Event::Tick);
                }
                _ = survey.tick() => {
                    for place in 0..self.executor.places().len() {
                        self.spawn(self.executor.clone().survey(place));
                    }
                    let work = self.executor.clone().keep_machines();
                    begin(&mut self.keeps_machines, &self.leadership, work);
                }
                _ = sweep.tick() => {
                    self.spawn(self.executor.clone().sweep());
                }
                _ = keep_young.tick() => {
                    let work = self.executor.clone().keep_young();
                    begin(&mut self.keeps_young, &self.leadership, work);
                }
                _ = sample.tick() => self.sample(),
                _ = rerun.tick(), if self.reruns_lost => {
                    let work = self.executor.clone().rerun_lost();
                    begin(&mut self.reruns, &self.leadership, work);
                }
                _ = prune.tick() => {
                    let store = self.store.clone();
                    self.spawn(async move {
                        if let Err(error) = store.prune(clock::now().wall).await {
                            warn!(%error, "old records were not deleted");
                        }
                    });
                }
                // Never `None`: the executor holds a sender too.
                Some(command) = self.commands.recv() => self.handle_command(command),
            }
        }
        self.finish(grace).await;
    }

    async fn finish(&mut self, grace: Duration) {
        info!(launching = self.state.launching(), "shutting down");
        // No new launches; those in flight still end in an event.
        self.handle(Event::Pause);
        self.tasks.close();
        let deadline = Instant::now() + grace;
        loop {
            tokio::select! {
                () = self.tasks.wait() => match self.commands.try_recv() {
                    Ok(command) => self.handle_command(command),
                    Err(_) => return,
                },
                Some(command) = self.commands.recv() => self.handle_command(command),
                () = time::sleep_until(deadline) => {
                    let unfinished = self.tasks.len();
                    warn!(unfinished, "grace period is over; the next start cleans up");
                    return;
                }
            }
        }
    }

    /// Everything that acts ends with the right to act.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = self.leadership.run_while_held(work);
        self.tasks.spawn(async move {
            work.await;
        });
    }

    fn sample(&mut self) {
        let running = self.state.runners().filter(|it| it.phase == Phase::Busy);
        let running = running.map(|runner| Sampling {
            runner: runner.name.clone(),
            pool: runner.pool.clone(),
            provider: runner.provider,
        });
        let work = self.executor.clone().sample_usages(running.collect());
        begin(&mut self.samples, &self.leadership, work);
    }

    /// The next launch of a pool pulls the image of a runner that was too old.
    fn note_too_old(&self, event: &Event) {
        let exited: Vec<&str> = match event {
            Event::ContainerExited { runner, status } if status.code == TOO_OLD_EXIT_CODE => {
                vec![runner]
            }
            Event::Survey { containers, .. } => {
                let is_too_old = AdoptedContainer::Exited(TOO_OLD_EXIT_CODE.into());
                let exited = containers.iter().filter(|it| it.container == is_too_old);
                exited.map(|it| it.runner.as_str()).collect()
            }
            _ => return,
        };
        for runner in exited.into_iter().filter_map(|runner| self.state.runner(runner)) {
            // It is noted once: its exit is why it leaves.
            if !matches!(runner.phase, Phase::Removing(_)) {
                self.executor.pull_at_next_launch(&runner.pool, &runner.parameters);
            }
        }
    }

    fn apply_schedules(&mut self) {
        let now = clock::now().wall;
        let pools = &self.state.settings().pools;
        let changes: Vec<(usize, usize)> = self
            .timetables
            .iter()
            .map(|timetable| (timetable.pool, timetable.min_idle(now)))
            .filter(|(pool, min_idle)| pools[*pool].min_idle != *min_idle)
            .collect();
        for (pool, min_idle) in changes {
            info!(
                pool = self.state.settings().pools[pool].name,
                min_idle, "min_idle changed by schedule"
            );
            self.handle(Event::MinIdle { pool, min_idle });
        }
    }

    fn report_quotas(&mut self) {
        let quotas = self.executor.quotas();
        if quotas != self.quotas {
            self.quotas.clone_from(&quotas);
            self.handle(Event::Quotas(quotas));
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Event(event) => self.handle(*event),
            // The caller may no longer wait.
            Command::GetSnapshot(reply) => {
                let (budgets, spending) = (self.executor.budgets(), self.executor.spending());
                let provider_error = self.executor.provider_error();
                let nodes = self.nodes().iter().cloned().map(NodeView::from).collect();
                let mut snapshot = Snapshot::new(&self.state, clock::now());
                for runner in &mut snapshot.runners {
                    runner.node = self.executor.node_of(&runner.name);
                }
                let mut versions = self.executor.versions();
                for pool in &mut snapshot.pools {
                    pool.runner_version = versions.remove(&pool.name);
                }
                let egress = self.executor.denials();
                let refused_webhooks = self.executor.refused_webhooks();
                let snapshot = Snapshot {
                    budgets,
                    spending,
                    provider_error,
                    nodes,
                    egress,
                    refused_webhooks,
                    ..snapshot
                };
                drop(reply.send(Ok(snapshot)));
            }
            Command::GetReadiness(reply) => drop(reply.send(match self.state.recovered() {
                true => Readiness::Ready,
                false => Readiness::Recovering(self.executor.provider_error()),
            })),
            Command::GetFigures(reply) => {
                let (budgets, nodes) = (self.executor.budgets(), self.nodes().to_vec());
                let figures = Figures::new(&self.state, budgets, nodes, clock::now());
                let versions = self.executor.versions();
                drop(reply.send(Some(Figures { versions, ..figures })));
            }
            Command::GetQueued { jobs, reply } => {
                drop(reply.send(Ok(QueuedJob::of(&self.state, &jobs, clock::now()))));
            }
            Command::Drain { pool: None, draining, reply } => {
                self.drain(None, None, draining, reply);
            }
            Command::Drain { pool: Some(name), draining, reply } => {
                let pools = &self.state.settings().pools;
                match pools.iter().position(|pool| pool.name == name) {
                    // It would stay drained, and resuming all pools resumes it as well.
                    Some(_) if !draining && self.state.draining() => {
                        drop(reply.send(Err(CommandError::AllDraining)));
                    }
                    Some(pool) => self.drain(Some(pool), Some(name), draining, reply),
                    None => {
                        let pools = pools.iter().map(|pool| pool.name.clone()).collect();
                        drop(reply.send(Err(CommandError::NoSuchPool { pools })));
                    }
                }
            }
            Command::Retry { reply } => {
                let causes = self.state.backoffs().map(|(_, backoff)| backoff.cause);
                let (rate_limited, others): (Vec<_>, Vec<_>) =
                    causes.partition(|cause| *cause == Cause::RateLimited);
                self.handle(Event::Retry);
                let (retried, rate_limited) = (others.len(), rate_limited.len());
                drop(reply.send(Ok(Retried { retried, rate_limited })));
            }
            Command::SetPools(pools) => self.set_pools(pools),
            Command::RemoveRunner { runner, force, reply } => {
                drop(reply.send(self.remove(runner, force)));
            }
        }
    }

    /// Does not wait for the first list, and keeps the last one while its provider is away.
    fn nodes(&mut self) -> &[Node] {
        if let Some((nodes, failed)) = self.executor.places().nodes().now_or_never()
            && failed.is_empty()
        {
            self.nodes = nodes;
        }
        &self.nodes
    }

    fn set_pools(&mut self, configs: Vec<PoolConfig>) {
        let mut pools: Vec<Pool> = configs.iter().map(PoolConfig::planner_pool).collect();
        self.timetables = PoolConfig::timetables(&configs);
        let now = clock::now().wall;
        for timetable in &self.timetables {
            pools[timetable.pool].min_idle = timetable.min_idle(now);
        }
        self.executor.set_pools(configs);
        self.pools.send_replace(pools.clone().into());
        self.unmatched.forget();
        self.handle(Event::Pools(pools));
        self.spawn(self.executor.clone().pull_images());
    }

    fn drain(
        &mut self,
        pool: Option<usize>,
        name: Option<String>,
        draining: bool,
        reply: Answer<()>,
    ) {
        info!(pool = name, draining, "drain or resume requested");
        let saved = self.store.save_draining(name, draining);
        // At once, even if the disk fails.
        self.handle(Event::Drain { pool, draining });
        self.spawn(async move {
            let saved = saved.await.map_err(|error| CommandError::NotStored(error.to_string()));
            drop(reply.send(saved));
        });
    }

    fn remove(&mut self, name: String, force: bool) -> Result<RunnerView, CommandError> {
        let runner = self.state.runner(&name).ok_or(CommandError::NoSuchRunner)?;
        match &runner.phase {
            phase if phase.waits_for_room() => {}
            Phase::Parking(_) | Phase::Provisioning(_) if !force => {
                return Err(CommandError::Launching);
            }
            Phase::Busy if !force => return Err(CommandError::Busy),
            Phase::Removing(removing) if !force => {
                return Err(CommandError::Leaving { why: removing.to_string() });
            }
            _ => {}
        }
        let before = RunnerView::new(runner);
        info!(runner = name, force, "removal requested");
        self.handle(Event::RemoveRunner { runner: name.clone(), force });
        Ok(match self.state.runner(&name) {
            Some(runner) if self.state.removed_after_launch(&name) => {
                let why = "it is removed once its launch has ended".to_owned();
                RunnerView { why: Some(why), ..RunnerView::new(runner) }
            }
            Some(runner) => RunnerView::new(runner),
            // Nothing of it was left but a registration.
            None => RunnerView { phase: "gone".into(), ..before },
        })
    }

    fn handle(&mut self, event: Event) {
        event_log::log(&event, &self.state);
        let now = clock::now();
        self.measure(&event, now);
        self.count_completed(&event);
        self.note_too_old(&event);
        for action in plan::plan(&mut self.state, event, now) {
            match action {
                Action::Launch(launch) => {
                    let Some(runner) = self.state.runner(&launch.runner) else { continue };
                    let created_at = runner.created.wall;
                    // The driver alone writes runners, so that their records keep their order.
                    let recorded = self.store.save_runner(self.record(runner));
                    let pool = self.executor.pools()[launch.pool].with(&launch.parameters);
                    let executor = self.executor.clone();
                    self.spawn(executor.launch(pool, launch, created_at, recorded));
                }
                Action::Wake(wake) => {
                    let Some(runner) = self.state.runner(&wake.runner) else { continue };
                    let recorded = self.store.save_runner(self.record(runner));
                    self.starting.insert(wake.runner.clone(), Instant::now());
                    self.spawn(self.executor.clone().wake(wake, recorded));
                }
                Action::Remove(removal) => {
                    self.spawn(self.executor.clone().remove(removal));
                }
                Action::Deregister { runner, target, registration_id } => {
                    let executor = self.executor.clone();
                    self.spawn(executor.deregister_left(runner, target, registration_id));
                }
                Action::LookUp(target) => {
                    self.spawn(self.executor.clone().look_up(target));
                }
                Action::LookUpJob { job, repository, target } => {
                    self.spawn(self.executor.clone().look_up_job(job, repository, target));
                }
                Action::LookUpRun { host, run_id, repository, target } => {
                    let executor = self.executor.clone();
                    self.spawn(executor.look_up_run(host, run_id, repository, target));
                }
                Action::RecordOrigins(origins) => {
                    let saved = self.store.save_origins(origins);
                    self.spawn(async move {
                        if let Err(error) = saved.await {
                            warn!(%error, "GitHub is asked again after a restart where the code of some jobs comes from");
                        }
                    });
                }
                Action::GiveUpJob { job, why } => {
                    self.spawn(self.executor.clone().give_up_job(job, why));
                }
                Action::Explain(reasons) => {
                    self.unmatched.log(&reasons, &self.state);
                    let saved = self.store.save_waiting(reasons);
                    self.spawn(async move {
                        if let Err(error) = saved.await {
                            warn!(%error, "waiting reasons are not up to date in the store");
                        }
                    });
                }
                Action::Record(name) => {
                    if let Some(runner) = self.state.runner(&name) {
                        if matches!(runner.phase, Phase::Idle | Phase::Busy)
                            && let Some(started) = self.starting.remove(&name)
                        {
                            metrics::launch_stage(&runner.pool, "online", started.elapsed());
                        }
                        if matches!(runner.phase, Phase::Idle | Phase::Busy)
                            && let Some(work) = self.executor.read_version(
                                &runner.pool,
                                &runner.name,
                                &runner.target,
                                runner.created.wall,
                            )
                        {
                            self.spawn(work);
                        }
                        if runner.phase == Phase::Busy {
                            let (place, runner) = (runner.provider, runner.name.clone());
                            self.spawn(self.executor.clone().protect(place, runner));
                        }
                        self.save(self.record(runner));
                    }
                }
                Action::Forget(runner, why) => {
                    self.starting.remove(&runner.name);
                    if why.is_failure() {
                        warn!(runner = runner.name, pool = runner.pool, %why, "runner gone");
                    } else {
                        info!(runner = runner.name, pool = runner.pool, %why, "runner gone");
                    }
                    metrics::runner_gone(&runner.pool, why);
                    report_left(&runner);
                    self.notify_of_death(&runner, why);
                    self.save(self.gone(&runner, why));
                    self.executor.forget(&runner.name);
                }
            }
        }
    }

    /// Records durations that end with this event, before the planner forgets their start.
    fn measure(&mut self, event: &Event, now: Moment) {
        match event {
            Event::JobStarted { job, .. } => {
                if let Some((pool, since)) = self.state.queued_job(job.key) {
                    metrics::picked_up(pool, now.instant.duration_since(since));
                }
            }
            Event::Launched { runner } => match self.state.runner(runner) {
                Some(Runner { phase: Phase::Provisioning(_), .. }) => {
                    self.starting.insert(runner.clone(), Instant::now());
                }
                // Its first job was reported before Docker reported the start.
                Some(Runner { phase: Phase::Idle | Phase::Busy, pool, .. }) => {
                    metrics::launch_stage(pool, "online", Duration::ZERO);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Counts a job that ends with this event, unless it has ended before or none of the pools has
    /// to do with it.
    fn count_completed(&self, event: &Event) {
        let (key, delivery) = match event {
            Event::JobCompleted { job, .. } => (job.key, Some(job.delivery.as_str())),
            Event::JobFound { job, state: JobState::Completed, .. } => {
                (*job, self.state.delivery(*job))
            }
            _ => return,
        };
        if !self.state.awaits_end(key) {
            return;
        }
        // A job that is cancelled in the queue has no runner.
        let queued_for = self.state.queued_job(key).map(|(pool, _)| pool.to_owned());
        // It is not known of a job that was found to be over after its runner was gone.
        let delivery = delivery.unwrap_or_default().to_owned();
        let store = self.store.clone();
        self.spawn(async move {
            if let Err(error) = count_job(&store, key, queued_for).await {
                warn!(job = %key, delivery, %error, "a completed job was not counted");
            }
        });
    }

    fn save(&self, record: RunnerRecord) {
        let (saved, unsaved) = (self.store.save_runner(record.clone()), Arc::clone(&self.unsaved));
        self.spawn(async move {
            // Until then, the container's labels are the record of last resort.
            if let Err(error) = saved.await {
                let runner = &record.name;
                error!(runner, %error, "a runner's record is not up to date in the store");
                if !matches!(error, store::Error::Fenced | store::Error::Closed) {
                    unsaved.lock().unwrap_or_else(PoisonError::into_inner).push(record);
                }
            }
        });
    }

    fn save_again(&self) {
        let unsaved = {
            let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unsaved)
        };
        for record in unsaved {
            // The end of a runner is its last record.
            match self.state.runner(&record.name) {
                _ if record.gone_at.is_some() => self.save(record),
                Some(runner) => self.save(self.record(runner)),
                None => {}
            }
        }
    }
}

impl Driver {
    /// A runner that was removed ended its job although that was not over.
    fn notify_of_death(&self, runner: &Runner, why: EndReason) {
        let Some(job) = runner.job else { return };
        if !why.is_death() || !self.notifier.is_on() {
            return;
        }
        let Runner { name, pool, target, since, .. } = runner;
        let died_at = since.wall;
        let message = format!(
            "runner {name} of pool {pool} died during job {job} at {target}: {why}. See \
             `edgerunner runners logs {name}`"
        );
        let (kind, subject, at) = (Kind::RunnerDied, pool.clone(), clock::now().wall);
        let notice = Notice { kind, subject, message, at };
        let (store, notifier) = (self.store.clone(), self.notifier.clone());
        let work = self.leadership.run_while_held(async move {
            time::sleep(JOB_REPORTED_WITHIN).await;
            // GitHub ends the job of a runner that it misses, often before the removal is over.
            let was_over = match store.job(job).await {
                Ok(Some(job)) => {
                    job.conclusion == "success" || job.completed_at.is_some_and(|at| at < died_at)
                }
                Ok(None) | Err(_) => false,
            };
            if !was_over {
                notifier.notify(notice);
            }
        });
        // The shutdown does not wait for it.
        tokio::spawn(work);
    }

    fn record(&self, runner: &Runner) -> RunnerRecord {
        RunnerRecord {
            name: runner.name.clone(),
            pool: runner.pool.clone(),
            provider: self.executor.provider_name(runner.provider).to_owned(),
            node: self.executor.node_of(&runner.name),
            host: runner.target.host,
            target: runner.target.to_string(),
            phase: runner.phase.as_str().into(),
            created_at: runner.created.wall,
            started_at: matches!(runner.phase, Phase::Starting | Phase::Idle | Phase::Busy)
                .then_some(runner.since.wall),
            online_at: (runner.phase == Phase::Idle).then_some(runner.since.wall),
            credential: self.state.credential_of(runner).map(str::to_owned),
            registration_id: runner.registration_id,
            job: runner.job,
            why: why(runner),
            end: None,
            failed: false,
            gone_at: None,
            peak: self.executor.peak(&runner.name),
        }
    }

    fn gone(&self, runner: &Runner, end: EndReason) -> RunnerRecord {
        RunnerRecord {
            phase: "gone".into(),
            why: why(runner).or_else(|| Some(end.to_string())),
            end: Some(end.as_str().to_owned()),
            failed: end.is_failure(),
            gone_at: Some(clock::now().wall),
            ..self.record(runner)
        }
    }
}

/// Counts a job by its record, which has its conclusion and is written before the planner hears of
/// it. `queued_for`: the pool that it waited for until now.
async fn count_job(
    store: &Store,
    key: JobKey,
    queued_for: Option<String>,
) -> Result<(), store::Error> {
    let Some(job) = store.job(key).await? else { return Ok(()) };
    let pool = match job.runner_name.is_empty() {
        true => queued_for,
        false => store.runner(job.runner_name).await?.map(|found| found.runner.pool),
    };
    let ran = job.started_at.zip(job.completed_at);
    // A start that was not reported is stored as the same time as the end.
    let ran_ms = ran.and_then(|(from, to)| to.checked_sub(from)).filter(|ms| *ms > 0);
    if let Some(pool) = pool {
        metrics::job_completed(&pool, &job.conclusion, ran_ms);
    }
    Ok(())
}

/// Begins the work, unless it is still under way.
fn begin(
    background: &mut Background,
    leadership: &Leadership,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if background.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
        let work = leadership.run_while_held(work);
        let task = tokio::spawn(async move {
            work.await;
        });
        *background = Some(AbortOnDropHandle::new(task));
    }
}

fn why(runner: &Runner) -> Option<String> {
    match &runner.phase {
        Phase::Removing(removing) => Some(removing.to_string()),
        _ => None,
    }
}

/// Reports what a runner leaves behind at its end.
fn report_left(runner: &Runner) {
    let Phase::Removing(removing) = &runner.phase else { return };
    if removing.leaves_registration() {
        metrics::registration_left(&runner.pool);
    }
    if let Some(left) = removing.left() {
        warn!(runner = runner.name, target = %runner.target, left, "a runner ended without");
    }
}

#[cfg(test)]
mod tests;
