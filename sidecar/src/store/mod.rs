//! The store: deliveries, jobs, runners and webhooks that must survive a restart.
//!
//! [`Store`] is a handle that names no database. Writes go through one queue to one writer,
//! which commits everything that is queued in one transaction: a burst pays for one flush to
//! disk, not for one per write. A queued write is carried out even if its caller stops
//! waiting. Reads go straight to the backend.
//!
//! Everything stored has one writer:
//!
//! | what | writer |
//! | --- | --- |
//! | deliveries and their jobs | the intake |
//! | why jobs wait, runners, draining | the driver |
//! | logs of runners, images that were pulled | the executor |
//! | webhooks | the watcher of their credential |
//! | changes that people made | the API |
//!
//! The one exception is a job's state: when the executor finds one at GitHub whose delivery
//! was lost, or gives a job up, it stores it too. Their order does not matter, since a state only moves forward.

#[cfg(feature = "bench")]
mod bench;
mod copy;
mod error;
mod job_queries;
mod lost;
mod postgres;
mod queue;
mod records;
mod report;
mod sqlite;
#[cfg(test)]
pub(crate) mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use edgerunner_scheduler::{
    model::{Host, Job, JobKey, JobState, RunOrigin, UnixMs},
    plan::Waiting,
};

use crate::config::Database;
#[cfg(feature = "bench")]
pub use bench::{accept, measure};
pub(crate) use copy::copy;
pub(crate) use error::{Error, OpenError};
pub(crate) use lost::{LostJob, Rerun};
pub(crate) use postgres::{
    Behind, CONNECTIONS, Cluster, FeedPosition, Inspection, LeaseRecord, Member, MemberFigures,
    SILENT_AFTER_MS, Topic, inspect,
};
use queue::{Queue, Write};
pub(crate) use records::{
    AuditRecord, DAY_MS, Delivery, DeliveryRecord, HISTORY_KEPT_DAYS, ImageRecord, JobDelivery,
    JobDetails, JobFilter, JobHistory, JobRecord, JobUpdate, Peak, QueueTime, RunnerHistory,
    RunnerRecord, StoreOutcome, Term, WebhookRecord,
};
pub(crate) use report::{LeftOut, Period, Report, ReportBy, ReportGroup};
pub(crate) use sqlite::back_up;

/// A handle to the store, cheap to clone. When the last clone is dropped, the writer
/// finishes its queue and closes the database.
#[derive(Clone)]
pub(crate) struct Store {
    queue: Queue,
    backend: Backend,
    /// Of a database that can be damaged without its server noticing.
    search: Option<sqlite::Search>,
    /// Where others may share it.
    cluster: Option<Cluster>,
    location: Arc<str>,
}

/// Where reads go. The writer of the same database takes its work from the queue.
#[derive(Clone)]
enum Backend {
    Sqlite(sqlite::Reader),
    Postgres(postgres::Reader),
}

/// Resolves once the writer has closed the database.
pub(crate) struct Closed(oneshot::Receiver<()>);

impl Closed {
    pub(crate) async fn wait(self) {
        // An error means that the writer is gone, which is what we wait for.
        let _ = self.0.await;
    }
}

impl Store {
    /// Opens the SQLite database at `path`, or creates it. A database that is damaged, newer than
    /// this program or another program's is rejected and left unchanged. `host` is the server
    /// of what an earlier version stored without one. One process at a time has it: see
    /// [`OpenError::is_in_use`]. `on_commit` is called on the writer's
    /// thread with the duration of each commit.
    pub(crate) fn open(
        path: &Path,
        host: Host,
        on_commit: impl Fn(Duration) + Send + 'static,
    ) -> Result<(Self, Closed), OpenError> {
        let (queue, writes) = Queue::new();
        let (reader, search, closed) = sqlite::open(path, host, writes, on_commit)?;
        let location = path.display().to_string().into();
        let backend = Backend::Sqlite(reader);
        Ok((Self { queue, backend, search: Some(search), cluster: None, location }, Closed(closed)))
    }

    /// Connects to a Postgres database, and creates or upgrades its schema. A schema that is newer
    /// than this program or another program's is rejected and left unchanged. Several processes may
    /// have it. Fails at once if the server cannot be reached: see [`OpenError::is_unreachable`].
    /// `on_commit` is called on the writer's thread with the duration of each commit.
    pub(crate) async fn connect(
        database: &Database,
        on_commit: impl Fn(Duration) + Send + 'static,
    ) -> Result<(Self, Closed), OpenError> {
        let (queue, writes) = Queue::new();
        let (reader, cluster, closed) = postgres::open(database, writes, on_commit).await?;
        let location = database.url.to_string().into();
        let backend = Backend::Postgres(reader);
        let store = Self { queue, backend, search: None, cluster: Some(cluster), location };
        Ok((store, Closed(closed)))
    }

    /// The same store, whose writes are carried out only while this term lasts: after that they
    /// fail with [`Error::Fenced`]. SQLite has one process and no terms.
    pub(crate) fn fenced(&self, term: Term) -> Self {
        Self { queue: self.queue.fenced(term), ..self.clone() }
    }

    /// What the sidecars that share this store know of each other; `None` if it has but one.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Writes that wait for a commit.
    pub(crate) fn queued_writes(&self) -> usize {
        self.queue.len()
    }

    /// Resolves when all of the database was read in search of damage, which may take longer than
    /// opening it. Fails if there is damage.
    pub(crate) fn searched(&self) -> impl Future<Output = Result<(), OpenError>> + Send + use<> {
        let search = self.search.clone();
        async move {
            match search {
                Some(search) => search.ended().await,
                None => Ok(()),
            }
        }
    }

    /// Where the database is, without secrets, for logs.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }
}

/// Writes. Those that are not `async` join the queue when they are called, so that two of
/// them keep their order; their futures resolve after the commit.
impl Store {
    /// Stores deliveries and moves their jobs forward: all of them or none. Returns the
    /// outcome of each, in order, after the commit.
    pub(crate) async fn deliver(
        &self,
        deliveries: Arc<[Delivery]>,
    ) -> Result<Vec<StoreOutcome>, Error> {
        self.queue.push(|reply| Write::Deliveries(deliveries, reply)).await
    }

    /// Moves a job forward to a state that no delivery announced. A step back is ignored.
    pub(crate) async fn advance_job(&self, update: JobUpdate) -> Result<(), Error> {
        self.queue.push(|reply| Write::Job(update, reply)).await
    }

    /// Stores why jobs are waiting. Ignored for jobs that are no longer queued.
    pub(crate) fn save_waiting(
        &self,
        reasons: Vec<(JobKey, Waiting)>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.queue.push(move |reply| Write::Waiting(reasons, reply))
    }

    /// Stores where the code of jobs comes from.
    pub(crate) fn save_origins(
        &self,
        origins: Vec<(JobKey, RunOrigin)>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.queue.push(move |reply| Write::Origins(origins, reply))
    }

    /// Stores that GitHub was asked to run jobs again, or that this was given up.
    pub(crate) async fn save_rerun(&self, rerun: Rerun) -> Result<(), Error> {
        self.queue.push(|reply| Write::Rerun(rerun, reply)).await
    }

    /// Stores a runner. Fields that are `None` leave what an earlier record said, except for
    /// `gone_at`.
    pub(crate) fn save_runner(
        &self,
        runner: RunnerRecord,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.queue.push(move |reply| Write::Runner(Box::new(runner), reply))
    }

    /// Stores the last log lines of a runner. Ignored if the runner is unknown.
    pub(crate) async fn save_runner_log(&self, runner: String, log: String) -> Result<(), Error> {
        self.queue.push(|reply| Write::RunnerLog { runner, log, reply }).await
    }

    /// Stores that a pool is drained or resumed; `None` means all pools.
    pub(crate) fn save_draining(
        &self,
        pool: Option<String>,
        draining: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.queue.push(move |reply| Write::Draining { pool, draining, reply })
    }

    /// Stores that an image was pulled.
    pub(crate) async fn save_image(&self, image: ImageRecord) -> Result<(), Error> {
        self.queue.push(|reply| Write::Image(image, reply)).await
    }

    /// Deletes the record of an image that its Engine has no more.
    pub(crate) async fn forget_image(&self, engine: String, id: String) -> Result<(), Error> {
        self.queue.push(|reply| Write::ImageGone { engine, id, reply }).await
    }

    /// Stores a webhook. Its times only move forward.
    pub(crate) async fn save_webhook(&self, webhook: WebhookRecord) -> Result<(), Error> {
        self.queue.push(|reply| Write::Webhook(webhook, reply)).await
    }

    /// Stores a change that somebody made.
    pub(crate) async fn save_audit(&self, change: AuditRecord) -> Result<(), Error> {
        self.queue.push(|reply| Write::Audit(change, reply)).await
    }

    /// Deletes deliveries that GitHub can no longer redeliver, and jobs, runners and webhooks
    /// that ended or were last seen 35 days before `now`. Many take several commits, so that
    /// other writes need not wait for all of them.
    pub(crate) async fn prune(&self, now: UnixMs) -> Result<(), Error> {
        while self.queue.push(|reply| Write::Prune(now, reply)).await? {}
        Ok(())
    }
}

/// Reads of jobs.
impl Store {
    pub(crate) async fn job(&self, key: JobKey) -> Result<Option<JobRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.job(key).await,
            Backend::Postgres(reader) => reader.job(key).await,
        }
    }

    /// Jobs that are queued or running, oldest first.
    pub(crate) async fn open_jobs(&self) -> Result<Vec<JobRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.open_jobs().await,
            Backend::Postgres(reader) => reader.open_jobs().await,
        }
    }

    /// For each repository whose jobs changed since then, one such job and when the latest
    /// change was.
    pub(crate) async fn latest_jobs(&self, since: UnixMs) -> Result<Vec<(Job, UnixMs)>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.latest_jobs(since).await,
            Backend::Postgres(reader) => reader.latest_jobs(since).await,
        }
    }

    /// Queued and running jobs oldest first; completed jobs newest first. Without queued jobs
    /// that other runners are expected to run.
    pub(crate) async fn jobs_in(
        &self,
        state: JobState,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.jobs_in(state, limit).await,
            Backend::Postgres(reader) => reader.jobs_in(state, limit).await,
        }
    }

    /// The jobs that pass a filter. Queued jobs come oldest first, after them those that other
    /// runners are expected to run; all others by their last change, newest first. With a
    /// repository or a pool, of completed jobs only the 100,000 that changed last are searched.
    pub(crate) async fn jobs(
        &self,
        filter: JobFilter,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.jobs(filter, limit).await,
            Backend::Postgres(reader) => reader.jobs(filter, limit).await,
        }
    }

    /// All attempts of the jobs with this id, of which each server may have one; newest first.
    pub(crate) async fn job_attempts(&self, id: u64) -> Result<Vec<JobHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.job_attempts(id).await,
            Backend::Postgres(reader) => reader.job_attempts(id).await,
        }
    }

    /// The jobs of a workflow run, newest attempt first.
    pub(crate) async fn jobs_of_run(&self, run: u64) -> Result<Vec<JobHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.jobs_of_run(run).await,
            Backend::Postgres(reader) => reader.jobs_of_run(run).await,
        }
    }

    /// How long each job waited that one of our runners took since then, newest first.
    pub(crate) async fn queue_times(&self, since: UnixMs) -> Result<Vec<QueueTime>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.queue_times(since).await,
            Backend::Postgres(reader) => reader.queue_times(since).await,
        }
    }
}

/// Reads of deliveries, runners, draining and webhooks.
impl Store {
    /// At most 100 jobs that failed with their runner since then, the oldest first.
    pub(crate) async fn lost_jobs(&self, since: UnixMs) -> Result<Vec<LostJob>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.lost_jobs(since).await,
            Backend::Postgres(reader) => reader.lost_jobs(since).await,
        }
    }

    /// What completed jobs used, by one of their properties. Takes longer the more there are.
    pub(crate) async fn report(&self, by: ReportBy, period: Period) -> Result<Report, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.report(by, period).await,
            Backend::Postgres(reader) => reader.report(by, period).await,
        }
    }

    /// Whether a delivery was stored since then. Takes longer the more there are.
    pub(crate) async fn has_delivery(&self, id: String, since: UnixMs) -> Result<bool, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.has_delivery(id, since).await,
            Backend::Postgres(reader) => reader.has_delivery(id, since).await,
        }
    }

    /// The deliveries stored last, newest first.
    pub(crate) async fn recent_deliveries(&self, limit: u32) -> Result<Vec<DeliveryRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.recent_deliveries(limit).await,
            Backend::Postgres(reader) => reader.recent_deliveries(limit).await,
        }
    }

    /// The deliveries about one attempt of a job, in the order in which they arrived.
    pub(crate) async fn deliveries_of(&self, key: JobKey) -> Result<Vec<JobDelivery>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.deliveries_of(key).await,
            Backend::Postgres(reader) => reader.deliveries_of(key).await,
        }
    }

    pub(crate) async fn runner(&self, name: String) -> Result<Option<RunnerHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.runner(name).await,
            Backend::Postgres(reader) => reader.runner(name).await,
        }
    }

    /// Runners that are not known to be gone, oldest first.
    pub(crate) async fn present_runners(&self) -> Result<Vec<RunnerRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.present_runners().await,
            Backend::Postgres(reader) => reader.present_runners().await,
        }
    }

    /// The runners launched last, newest first, including those that are gone.
    pub(crate) async fn recent_runners(&self, limit: u32) -> Result<Vec<RunnerHistory>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.recent_runners(limit).await,
            Backend::Postgres(reader) => reader.recent_runners(limit).await,
        }
    }

    /// The runners launched last among those that failed, newest first.
    pub(crate) async fn failed_runners(&self, limit: u32) -> Result<Vec<RunnerRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.failed_runners(limit).await,
            Backend::Postgres(reader) => reader.failed_runners(limit).await,
        }
    }

    /// Pools that are being drained; `None` means all pools.
    pub(crate) async fn draining(&self) -> Result<Vec<Option<String>>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.draining().await,
            Backend::Postgres(reader) => reader.draining().await,
        }
    }

    /// Images that were pulled, the oldest first.
    pub(crate) async fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.images().await,
            Backend::Postgres(reader) => reader.images().await,
        }
    }

    /// Changes that people made, newest first.
    pub(crate) async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.audit(limit).await,
            Backend::Postgres(reader) => reader.audit(limit).await,
        }
    }

    pub(crate) async fn webhooks(&self) -> Result<Vec<WebhookRecord>, Error> {
        match &self.backend {
            Backend::Sqlite(reader) => reader.webhooks().await,
            Backend::Postgres(reader) => reader.webhooks().await,
        }
    }
}
