//! What must survive: deliveries, jobs and runners, in SQLite.
//!
//! One thread writes. All that callers have handed over by the time it begins
//! goes into one transaction, so that a burst pays for one `fsync`, not for one
//! each. A write that was accepted is carried out whether or not its caller
//! still waits for it.

mod backup;
mod history;
mod schema;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rusqlite::{Connection, OptionalExtension as _, Row};
use tokio::sync::{mpsc, oneshot};

pub(crate) use backup::back_up;
pub(crate) use history::{DeliveryRecord, JobHistory};
pub(crate) use schema::OpenError;
pub(crate) use write::{JobNews, JobRecord, RunnerRecord, Stored, WebhookRecord};

use edgerunner_scheduler::{
    model::{Job, JobKey, JobState, UnixMs},
    plan::Waiting,
};
use write::{Reply, Write, write_groups};

/// Writes that may wait for the writer. Beyond it callers are told to come
/// back: better than a queue whose end is past their deadline.
const WAITING_WRITES_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("too many writes are waiting for the disk")]
    Busy,
    #[error("the store cannot be written: {0}")]
    Write(Arc<rusqlite::Error>),
    #[error("the store cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
    #[error("the store is closed")]
    Closed,
}

/// Cheap to clone. When the last clone is dropped the writer finishes what it
/// was given and closes the database.
#[derive(Clone)]
pub(crate) struct Store {
    writes: mpsc::Sender<Write>,
    reader: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

/// Waits until the writer has closed the database.
pub(crate) struct Closed(oneshot::Receiver<()>);

impl Closed {
    pub(crate) async fn wait(self) {
        // An error means that the thread is gone, which is what we wait for.
        let _ = self.0.await;
    }
}

impl Store {
    /// Opens the database, or creates it. Refuses one that is damaged, foreign or
    /// newer than this program, and changes nothing in it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Closed), OpenError> {
        let connection = schema::open(path)?;
        let reader = schema::open_reader(path)?;
        let (writes, receiver) = mpsc::channel(WAITING_WRITES_MAX);
        let (closed, wait) = oneshot::channel();
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                write_groups(connection, receiver);
                let _ = closed.send(());
            })
            .map_err(|error| OpenError::Io { path: path.into(), error })?;
        let store =
            Self { writes, reader: Arc::new(Mutex::new(reader)), path: Arc::new(path.to_owned()) };
        Ok((store, Closed(wait)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores deliveries and moves their jobs forward, all of them or none. Returns after
    /// the commit what each came to.
    pub(crate) async fn deliver(&self, deliveries: Arc<[Delivery]>) -> Result<Vec<Stored>, Error> {
        self.write(|reply| Write::Deliveries(deliveries, reply)).await
    }

    /// Stores what is known of a runner. The write is handed over at once, so that two
    /// of them keep their order; the future ends after the commit.
    pub(crate) fn save_runner(
        &self,
        runner: RunnerRecord,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.write(move |reply| Write::Runner(Box::new(runner), reply))
    }

    /// Moves a job forward by what was found out without a delivery.
    pub(crate) async fn advance_job(&self, news: JobNews) -> Result<(), Error> {
        self.write(|reply| Write::Job(news, reply)).await
    }

    /// Keeps why jobs wait. The write is handed over at once, as that of a runner.
    pub(crate) fn save_waiting(
        &self,
        reasons: Vec<(JobKey, Waiting)>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.write(move |reply| Write::Waiting(reasons, reply))
    }

    /// Keeps the last log lines of a runner that failed.
    pub(crate) async fn save_runner_log(&self, runner: String, log: String) -> Result<(), Error> {
        self.write(|reply| Write::RunnerLog { runner, log, reply }).await
    }

    /// Keeps that a pool, or all of them, drain or do not. The write is handed over at
    /// once, as that of a runner.
    pub(crate) fn save_draining(
        &self,
        pool: Option<String>,
        draining: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.write(move |reply| Write::Draining { pool, draining, reply })
    }

    /// Keeps a hook; what is known of it already is not taken back.
    pub(crate) async fn save_hook(&self, hook: WebhookRecord) -> Result<(), Error> {
        self.write(|reply| Write::Hook(hook, reply)).await
    }

    /// Drops what nobody asks for any more: deliveries that GitHub cannot repeat,
    /// jobs and runners that ended long ago.
    pub(crate) async fn prune(&self, now: UnixMs) -> Result<(), Error> {
        self.write(|reply| Write::Prune(now, reply)).await
    }

    /// Hands a write over at once; the future ends after its commit.
    fn write<T: Send, W: FnOnce(Reply<T>) -> Write>(
        &self,
        write: W,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T, W> {
        let (reply, answer) = oneshot::channel();
        let handed_over = self.writes.try_send(write(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        });
        async move {
            handed_over?;
            answer.await.map_err(|_| Error::Closed)?
        }
    }

    /// Jobs that are queued or running, oldest first.
    pub(crate) async fn open_jobs(&self) -> Result<Vec<JobRecord>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {} FROM jobs WHERE state < ?1 ORDER BY queued_ms, id",
                JobRecord::COLUMNS
            ))?;
            statement.query_map([JobState::Completed as i64], JobRecord::from_row)?.collect()
        })
        .await
    }

    /// The jobs that changed last, newest first.
    pub(crate) async fn recent_jobs(&self, limit: u32) -> Result<Vec<JobRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {} FROM jobs ORDER BY changed_ms DESC, id DESC LIMIT ?1",
                JobRecord::COLUMNS
            ))?;
            statement.query_map([limit], JobRecord::from_row)?.collect()
        })
        .await
    }

    /// Runners that are not known to be gone.
    pub(crate) async fn present_runners(&self) -> Result<Vec<RunnerRecord>, Error> {
        self.runners("WHERE gone_ms IS NULL ORDER BY created_ms", 0).await
    }

    /// The runners that were launched last, newest first, gone ones included.
    pub(crate) async fn recent_runners(&self, limit: u32) -> Result<Vec<RunnerRecord>, Error> {
        self.runners("WHERE ?1 > 0 ORDER BY created_ms DESC LIMIT ?1", limit).await
    }

    async fn runners(&self, rest: &'static str, limit: u32) -> Result<Vec<RunnerRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {}, log FROM runners {rest}",
                RunnerRecord::COLUMNS
            ))?;
            let limit = rest.contains("?1").then_some(limit);
            statement
                .query_map(rusqlite::params_from_iter(limit), RunnerRecord::from_row)?
                .collect()
        })
        .await
    }

    /// Pools that drain; `None` stands for all of them.
    pub(crate) async fn draining(&self) -> Result<Vec<Option<String>>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT pool FROM draining")?;
            let pools = statement.query_map([], |row| row.get(0))?;
            pools
                .map(|pool| pool.map(|pool: String| Some(pool).filter(|it| !it.is_empty())))
                .collect()
        })
        .await
    }

    pub(crate) async fn hooks(&self) -> Result<Vec<WebhookRecord>, Error> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT hook, app_id, seen_ms, settled_ms FROM hooks")?;
            let hooks = statement.query_map([], |row| {
                Ok(WebhookRecord {
                    hook: row.get(0)?,
                    app_id: row.get(1)?,
                    seen_at: row.get(2)?,
                    settled_until: row.get(3)?,
                })
            })?;
            hooks.collect()
        })
        .await
    }

    /// Whether a delivery was stored since then. It takes longer the more there were.
    pub(crate) async fn has_delivery(&self, id: String, since: UnixMs) -> Result<bool, Error> {
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE received_ms >= ?1 AND id = ?2")?
                .exists((since, id))
        })
        .await
    }

    /// The latest job of each repository that had news since then.
    pub(crate) async fn latest_jobs(
        &self,
        since: UnixMs,
    ) -> Result<Vec<(JobRecord, UnixMs)>, Error> {
        self.read(move |connection| {
            // SQLite takes the other columns from the row that has the maximum.
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {}, max(changed_ms) AS latest FROM jobs WHERE changed_ms >= ?1
                 GROUP BY lower(repository)",
                JobRecord::COLUMNS
            ))?;
            let latest = statement
                .query_map([since], |row| Ok((JobRecord::from_row(row)?, row.get("latest")?)))?;
            latest.collect()
        })
        .await
    }

    pub(crate) async fn job(&self, key: JobKey) -> Result<Option<JobRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {} FROM jobs WHERE id = ?1 AND run_attempt = ?2",
                JobRecord::COLUMNS
            ))?;
            statement.query_row((key.id, key.run_attempt), JobRecord::from_row).optional()
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection)
        })
        .await
        .map_err(|_| Error::Closed)?
        .map_err(Error::Read)
    }
}

/// One delivery, as it is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub hook: String,
    pub hook_id: u64,
    pub hook_target_type: String,
    pub hook_target_id: u64,
    pub received_at: UnixMs,
    /// The job's state as this delivery tells it, with all that it says of the job.
    pub job: JobRecord,
}

impl JobRecord {
    pub(crate) fn job(&self) -> Job {
        Job {
            key: self.key,
            repository: self.repository.clone(),
            organization: self.organization.clone(),
            enterprise: self.enterprise.clone(),
            labels: self.labels.clone(),
            queued_at: self.queued_at,
            delivery: self.delivery.clone(),
        }
    }
}

fn json_list(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    // Written by us alone; a damaged page is found by SQLite first.
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

#[cfg(test)]
mod tests;
