//! Carries out what the planner decided; every action ends in an event. The
//! only place that joins GitHub and Docker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use secrecy::SecretString;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::{Instrument as _, debug, error, info, info_span, trace_span, warn};

use crate::{
    config::{DockerAccess, PoolConfig},
    control::clock,
    control::command::Events,
    control::snapshot::BudgetView,
    github::clients::Clients,
    github::{self, JobProgress},
    provider::docker::{
        self, ChangeKind, ContainerSpec, ContainerState, Docker, File, Found, JobEngine, Labels,
    },
    provider::registration::{self, Credentials},
    store::{JobNews, RunnerRecord, Store},
    telemetry::metrics,
    telemetry::traces::{self, Deliveries},
};
use edgerunner_scheduler::{
    model::{Cause, JobKey, JobState, Target},
    plan::{Adopted, AdoptedContainer, Event, JobStatus, Launch, Registration, Removal, Stage},
};

/// Launches at Docker at once: more only make each of them slower.
const LAUNCHES_MAX: usize = 16;
/// Of a runner that failed, or that is looked at.
const LOG_LINES: usize = 100;
/// For a runner whose pool is no longer configured.
const STOP_GRACE_WITHOUT_POOL: Duration = Duration::from_secs(10);
const WATCH_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    events: Events,
}

pub(crate) struct Shared {
    pub instance: String,
    pools: RwLock<Arc<[Arc<PoolConfig>]>>,
    pub access: Arc<Clients>,
    pub docker: Docker,
    pub store: Store,
    traces: Arc<Deliveries>,
    launches: Semaphore,
}

/// Why a launch failed, as far as the planner needs to know.
struct Failure {
    cause: Cause,
    message: String,
    retry_after: Duration,
    may_run: bool,
}

/// One of a launch, measured if it ends well, and a span of its trace.
async fn stage<T, E>(
    pool: &str,
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let begun = Instant::now();
    let span = trace_span!(target: traces::TARGET, "stage", otel.name = name);
    let done = work.instrument(span).await?;
    metrics::launch_stage(pool, name, begun.elapsed());
    Ok(done)
}

fn shared_pools(pools: Vec<PoolConfig>) -> Arc<[Arc<PoolConfig>]> {
    pools.into_iter().map(Arc::new).collect()
}

impl Executor {
    pub(crate) fn new(
        instance: String,
        pools: Vec<PoolConfig>,
        access: Arc<Clients>,
        docker: Docker,
        store: Store,
        traces: Arc<Deliveries>,
        events: Events,
    ) -> Self {
        let launches = Semaphore::new(LAUNCHES_MAX);
        let pools = RwLock::new(shared_pools(pools));
        let shared = Shared { instance, pools, access, docker, store, traces, launches };
        Self { shared: Arc::new(shared), events }
    }

    /// From now on: what is under way goes on with those it began with.
    pub(crate) fn set_pools(&self, pools: Vec<PoolConfig>) {
        let mut current = self.shared.pools.write().unwrap_or_else(PoisonError::into_inner);
        *current = shared_pools(pools);
    }

    pub(crate) fn pools(&self) -> Arc<[Arc<PoolConfig>]> {
        Arc::clone(&self.shared.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn budgets(&self) -> Vec<BudgetView> {
        self.shared.access.budgets()
    }

    async fn tell(&self, event: Event) {
        self.events.send(event).await;
    }

    // Launch

    pub(crate) async fn launch(self, pool: Arc<PoolConfig>, launch: Launch, record: RunnerRecord) {
        let span = info_span!(
            target: traces::TARGET,
            "launch",
            delivery = launch.prompted_by,
            runner = launch.runner,
            pool = pool.name,
            target = %launch.target,
        );
        self.shared.traces.join(&span, launch.prompted_by.as_deref());
        async {
            let begun = Instant::now();
            // The planner gives up a little later, so that a launch has one end.
            let limit = Duration::from_millis(pool.limits.provisioning_ms);
            let result = match timeout(limit, self.try_launch(&pool, &launch, record)).await {
                Ok(result) => result,
                Err(_) => Err(Failure {
                    cause: Cause::TimedOut,
                    message: format!("the launch took longer than {} s", limit.as_secs()),
                    retry_after: Duration::ZERO,
                    may_run: true,
                }),
            };
            let runner = launch.runner.clone();
            let event = match result {
                Ok(()) => {
                    metrics::launched(&pool.name, begun.elapsed().as_secs_f64());
                    Event::Launched { runner }
                }
                Err(Failure { cause, message, retry_after, may_run }) => {
                    metrics::launch_failed(&pool.name, cause);
                    traces::failed(&message);
                    error!(cause = cause.as_str(), message, "launch failed");
                    let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                    Event::LaunchFailed { runner, cause, message, retry_after_ms, may_run }
                }
            };
            self.tell(event).await;
        }
        .instrument(span)
        .await;
    }

    async fn try_launch(
        &self,
        pool: &PoolConfig,
        launch: &Launch,
        record: RunnerRecord,
    ) -> Result<(), Failure> {
        let store = &self.shared.store;
        let created_at = record.created_at;
        // Before GitHub and Docker hear of it: after a crash the name tells what to remove.
        let recorded = async {
            store.save_runner(record).await.map_err(|error| Failure {
                cause: Cause::Store,
                message: error.to_string(),
                retry_after: Duration::ZERO,
                may_run: false,
            })
        };
        let name = pool.name.as_str();
        // The image before the credentials, which must not grow old during a pull, and
        // before the permit: one pool's pull must not hold up the launches of the others.
        self.progress(launch, Stage::Image).await;
        let images = self.ensure_images(pool).map_err(Failure::from);
        stage(name, "image", async { tokio::try_join!(recorded, images) }).await?;
        let permit = self.shared.launches.acquire().map(Ok::<_, Failure>);
        let _permit = stage(name, "turn", permit).await?;
        self.progress(launch, Stage::Credentials).await;
        let place = self.shared.access.to(&launch.target)?;
        let credentials = Credentials::get(place, pool, &launch.target, &launch.runner);
        let credentials = stage(name, "credentials", credentials).await?;
        if let Some(registration_id) = credentials.registration_id {
            let runner = launch.runner.clone();
            self.tell(Event::Registered { runner, registration_id }).await;
        }
        self.progress(launch, Stage::Container).await;
        let labels = Labels {
            instance: self.shared.instance.clone(),
            pool: pool.name.clone(),
            runner: launch.runner.clone(),
            target: launch.target.to_string(),
            launched_unix_ms: created_at,
        };
        let container = self.run_container(pool, labels, credentials.env).map_err(|error| {
            // It may have got far enough for a container to exist.
            Failure { may_run: true, ..Failure::from(error) }
        });
        let container = stage(name, "container", container).await?;
        let image = &pool.container.runner_image;
        info!(container = container.get(..12), image, "container started");
        Ok(())
    }

    /// Its id.
    async fn run_container(
        &self,
        pool: &PoolConfig,
        labels: Labels,
        mut env: Vec<(String, SecretString)>,
    ) -> Result<String, docker::Error> {
        let docker = &self.shared.docker;
        let engine = self.job_engine(pool, &labels).await?;
        let mut files = Vec::new();
        for hook in &pool.job_scripts {
            env.push((hook.variable.to_owned(), hook.path.clone().into()));
            files.push(File::Script { path: hook.path.clone(), content: hook.content.clone() });
        }
        if let Some(JobEngine::Own(dind)) = &engine {
            files.push(File::Directory { path: dind.work_folder().to_owned() });
        }
        let command = pool.command();
        let spec =
            ContainerSpec { labels, command, env, settings: pool.container.clone(), engine, files };
        let container = docker.create(&spec).await?;
        docker.start(&container).await?;
        Ok(container)
    }

    /// The Engine that a runner's jobs may use, ready for them.
    async fn job_engine(
        &self,
        pool: &PoolConfig,
        labels: &Labels,
    ) -> Result<Option<JobEngine>, docker::Error> {
        let docker = &self.shared.docker;
        match pool.container.docker {
            DockerAccess::None => Ok(None),
            DockerAccess::Socket => docker.own_engine().map(Some),
            DockerAccess::Dind => {
                let dind = docker.start_dind(labels, &pool.container, &pool.work_folder).await?;
                Ok(Some(JobEngine::Own(dind)))
            }
        }
    }

    async fn ensure_images(&self, pool: &PoolConfig) -> Result<(), docker::Error> {
        let settings = &pool.container;
        let engine = (settings.docker == DockerAccess::Dind).then_some(&settings.dind_image);
        for image in [&settings.runner_image].into_iter().chain(engine) {
            let platform = settings.platform.as_deref();
            self.shared.docker.ensure_image(image, platform, settings.pull_policy).await?;
        }
        Ok(())
    }

    /// So that the first job of each pool does not wait for a pull.
    pub(crate) async fn pull_images(self) {
        for pool in self.pools().iter() {
            if let Err(error) = self.ensure_images(pool).await {
                warn!(pool = pool.name, %error, "its image is not there yet");
            }
        }
    }

    async fn progress(&self, launch: &Launch, stage: Stage) {
        self.tell(Event::Progress { runner: launch.runner.clone(), stage }).await;
    }

    // Remove

    pub(crate) async fn remove(self, removal: Removal) {
        let span = info_span!("remove", runner = removal.runner);
        async {
            let event = match self.try_remove(&removal).await {
                Ok(Removed::Yes) => Event::Removed { runner: removal.runner },
                Ok(Removed::Busy) => {
                    info!("GitHub says that the runner is busy: it stays");
                    Event::RemovalRefused { runner: removal.runner }
                }
                Err(message) => {
                    warn!(message, "not removed yet");
                    Event::RemovalFailed { runner: removal.runner }
                }
            };
            self.tell(event).await;
        }
        .instrument(span)
        .await;
    }

    /// The registration goes first: GitHub refuses it for a busy runner, and then the
    /// container must stay as well.
    async fn try_remove(&self, removal: &Removal) -> Result<Removed, String> {
        if removal.force {
            self.remove_container(removal).await?;
        }
        if removal.deregister && self.deregister(removal).await? == github::Removal::Busy {
            return Ok(Removed::Busy);
        }
        if !removal.force {
            self.remove_container(removal).await?;
        }
        Ok(Removed::Yes)
    }

    async fn deregister(&self, removal: &Removal) -> Result<github::Removal, String> {
        let access = self.shared.access.to(&removal.target);
        let github = &access.map_err(|error| error.to_string())?.github;
        let id = match removal.registration_id {
            Some(id) => Some(id),
            // A registration whose answer was lost, or one that the runner made itself.
            None => github
                .runner_named(&removal.target, &removal.runner)
                .await
                .map_err(|error| error.to_string())?
                .map(|registered| registered.id),
        };
        let Some(id) = id else { return Ok(github::Removal::NotFound) };
        let done = github.remove_runner(&removal.target, id).await;
        debug!(?done, id, "registration");
        done.map_err(|error| error.to_string())
    }

    /// The end of its log, without its credentials and the values of its pool's `env`.
    pub(crate) async fn runner_log(
        &self,
        pool: &str,
        runner: &str,
    ) -> Result<String, docker::Error> {
        let pools = self.pools();
        let pool = pools.iter().find(|known| known.name == pool);
        let secret = |variable: &str| {
            registration::SECRETS.contains(&variable)
                || pool.is_some_and(|pool| pool.container.env.contains_key(variable))
        };
        self.shared.docker.last_log_lines_without(runner, LOG_LINES, secret).await
    }

    async fn remove_container(&self, removal: &Removal) -> Result<(), String> {
        let Shared { docker, store, .. } = &*self.shared;
        // A container bears its runner's name.
        let container = &removal.runner;
        if removal.keep_logs
            && let Ok(log) = self.runner_log(&removal.pool, container).await
            && let Err(error) = store.save_runner_log(removal.runner.clone(), log).await
        {
            warn!(%error, "the last log lines of a failed runner are lost");
        }
        let pools = self.pools();
        let pool = pools.iter().find(|pool| pool.name == removal.pool);
        let stop_grace = pool.map_or(STOP_GRACE_WITHOUT_POOL, |pool| pool.stop_grace);
        docker.remove(container, stop_grace).await.map_err(|error| error.to_string())?;
        debug!("container removed");
        if pool.is_none_or(|pool| pool.container.docker == DockerAccess::Dind) {
            let instance = &self.shared.instance;
            let leftovers = docker.leftovers(instance, Some(container)).await;
            for leftover in leftovers.map_err(|error| error.to_string())? {
                let removed = docker.remove_leftover(&leftover).await;
                removed.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Removes what is left of runners that are gone.
    pub(crate) async fn sweep(self) {
        if let Err(error) = self.try_sweep().await {
            warn!(%error, "not swept");
        }
    }

    async fn try_sweep(&self) -> anyhow::Result<()> {
        let Shared { docker, store, instance, .. } = &*self.shared;
        let leftovers = docker.leftovers(instance, None).await?;
        if leftovers.is_empty() {
            return Ok(());
        }
        // Asked for later: a launch is recorded before it makes anything. Containers as
        // well, for the store may be a new one.
        let containers = docker.survey(instance).await?.into_iter().map(|it| it.labels.runner);
        let records = store.present_runners().await?.into_iter().map(|record| record.name);
        let present: HashSet<String> = containers.chain(records).collect();
        for leftover in leftovers.iter().filter(|it| !present.contains(&it.runner)) {
            info!(runner = leftover.runner, "removing what it left");
            docker.remove_leftover(leftover).await?;
        }
        Ok(())
    }

    // Observe

    pub(crate) async fn look_up(self, target: Target) {
        let found = match self.shared.access.to(&target) {
            Ok(access) => access.github.runners(&target).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(listed) => {
                let runners = listed
                    .into_iter()
                    .map(|runner| Registration {
                        name: runner.name,
                        id: runner.id,
                        online: runner.online,
                        busy: runner.busy,
                    })
                    .collect();
                self.tell(Event::Registrations { target, runners }).await;
            }
            Err(error) => warn!(%target, %error, "runners not looked up"),
        }
    }

    /// Finds out what became of a job, and keeps what has changed.
    pub(crate) async fn look_up_job(self, job: JobKey, repository: String, target: Target) {
        let Some((owner, name)) = repository.split_once('/') else { return };
        // With what registers its runners: another may not see the job, which would then
        // pass for one that is gone.
        let found = match self.shared.access.to(&target) {
            Ok(access) => access.github.job(owner, name, job.id).await,
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(%job, %error, "job not looked up");
                return;
            }
        };
        let (state, status, runner, conclusion) = match found {
            Some(found) => {
                let runner = found.runner_name.unwrap_or_default();
                let conclusion = found.conclusion.unwrap_or_default();
                match found.status {
                    JobProgress::Queued | JobProgress::Held => {
                        (JobState::Queued, JobStatus::Queued, runner, conclusion)
                    }
                    JobProgress::InProgress => {
                        let status = JobStatus::InProgress { runner: runner.clone() };
                        (JobState::InProgress, status, runner, conclusion)
                    }
                    JobProgress::Completed => {
                        (JobState::Completed, JobStatus::Over, runner, conclusion)
                    }
                }
            }
            None => (JobState::Completed, JobStatus::Over, String::new(), "gone".into()),
        };
        if state != JobState::Queued {
            info!(%job, state = state.as_str(), conclusion, "news of a job were lost");
            let saved = self.shared.store.advance_job(JobNews {
                key: job,
                state,
                runner_name: runner,
                conclusion,
                at: clock::now(),
            });
            if let Err(error) = saved.await {
                error!(%job, %error, "a job's record is not up to date");
            }
        }
        self.tell(Event::JobFound { job, status }).await;
    }

    /// Tells of containers that end, for as long as the process lives.
    /// Begins once everything is adopted: an exit before that would be nobody's.
    pub(crate) async fn watch(&self) {
        loop {
            let changes = self.shared.docker.watch(&self.shared.instance);
            tokio::pin!(changes);
            // What happened while nobody watched.
            self.clone().survey().await;
            while let Some(change) = changes.next().await {
                match change {
                    Ok(change) => {
                        if let ChangeKind::Died { exit_code } = change.kind {
                            let runner = change.runner;
                            self.tell(Event::ContainerExited { runner, exit_code }).await;
                        }
                    }
                    Err(error) => {
                        warn!(%error, "not watching containers");
                        break;
                    }
                }
            }
            sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    /// Tells what containers there are.
    pub(crate) async fn survey(self) {
        let taken_at = clock::now();
        match self.shared.docker.survey(&self.shared.instance).await {
            Ok(found) => {
                let containers = found.into_iter().filter_map(adopted).collect();
                self.tell(Event::Survey { containers, taken_at }).await;
            }
            Err(error) => warn!(%error, "containers not surveyed"),
        }
    }

    /// Adopts what an earlier process left behind, then watches. Never ends.
    pub(crate) async fn recover_and_watch(self, records: Vec<RunnerRecord>) {
        self.recover(records).await;
        self.watch().await;
    }

    /// Finds out what an earlier process left behind: runners in the store, with the
    /// state of their containers. Tries until Docker answers.
    pub(crate) async fn recover(&self, records: Vec<RunnerRecord>) {
        let found = loop {
            match self.shared.docker.survey(&self.shared.instance).await {
                Ok(found) => break found,
                Err(error) => error!(%error, "nothing is launched until Docker answers"),
            }
            sleep(WATCH_AGAIN_AFTER).await;
        };
        let mut containers: HashMap<String, Adopted> = found
            .into_iter()
            .filter_map(adopted)
            .map(|container| (container.runner.clone(), container))
            .collect();
        for record in records {
            let container = containers.remove(&record.name);
            if let Ok(target) = record.target.parse() {
                let adopted = Adopted {
                    runner: record.name,
                    pool: record.pool,
                    target,
                    registration_id: record.registration_id,
                    job: record.job,
                    created_at: record.created_at,
                    container: container
                        .map_or(AdoptedContainer::Missing, |container| container.container),
                };
                self.tell(Event::Adopted(adopted)).await;
            } else {
                error!(runner = record.name, target = record.target, "its record is not readable");
            }
        }
        for (_, container) in containers {
            self.tell(Event::Adopted(container)).await;
        }
        self.tell(Event::Recovered).await;
    }
}

#[derive(PartialEq, Eq)]
enum Removed {
    Yes,
    Busy,
}

fn adopted(found: Found) -> Option<Adopted> {
    let Labels { runner, pool, target, launched_unix_ms, .. } = found.labels;
    let container = match found.state {
        ContainerState::Running => AdoptedContainer::Running,
        ContainerState::Exited { code } => AdoptedContainer::Exited(code),
        ContainerState::Created => AdoptedContainer::Created,
        ContainerState::Removing => AdoptedContainer::Missing,
    };
    let Ok(target) = target.parse() else {
        error!(container = found.container_id, "our label, but no target: not touched");
        return None;
    };
    Some(Adopted {
        runner,
        pool,
        target,
        registration_id: None,
        job: None,
        created_at: launched_unix_ms,
        container,
    })
}

impl From<docker::Error> for Failure {
    fn from(error: docker::Error) -> Self {
        let cause = match error.cause {
            docker::Cause::DaemonUnreachable => Cause::DockerUnavailable,
            docker::Cause::ImageMissing | docker::Cause::PullFailed => Cause::Image,
            _ => Cause::Container,
        };
        Self { cause, message: error.message, retry_after: Duration::ZERO, may_run: false }
    }
}

impl From<github::Error> for Failure {
    fn from(error: github::Error) -> Self {
        use github::Cause as Answer;
        let cause = match error.cause {
            Answer::Unauthorized => Cause::Unauthorized,
            Answer::Forbidden | Answer::NotFound => Cause::Forbidden,
            Answer::RateLimited => Cause::RateLimited,
            Answer::NameTaken | Answer::Invalid => Cause::Rejected,
            Answer::Server | Answer::Unreachable | Answer::TimedOut | Answer::UnexpectedAnswer => {
                Cause::GitHubUnavailable
            }
        };
        Self {
            cause,
            message: error.to_string(),
            retry_after: error.retry_after.unwrap_or_default(),
            may_run: false,
        }
    }
}
