//! The writer: groups of writes, each group one transaction, on a thread and a connection of its
//! own. It connects again when the connection is lost.

use std::{
    mem,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    connect::{ConnectError, Connector, Lost, describe},
    session::{Failure, Session},
};
use crate::store::{
    error::{DatabaseError, Error},
    queue::{self, Queued},
};

/// Writes in one transaction: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;
/// For how long writes wait for a connection that was just lost. After that, and until there is
/// one, they fail at once: GitHub waits for an answer.
const GRACE: Duration = Duration::from_secs(1);
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);
/// Short, since the filter holds deliveries for some seconds only.
const RETRY_AFTER_MAX: Duration = Duration::from_millis(500);
/// For the last words to the server.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Runs until every sender is gone and the last write is committed.
pub(super) fn run(
    runtime: &Runtime,
    connector: Connector,
    writes: mpsc::Receiver<Queued>,
    on_commit: impl Fn(Duration),
) {
    let writer = Writer { connector, writes, group: Vec::new(), on_commit };
    runtime.block_on(writer.run());
}

struct Writer<F> {
    connector: Connector,
    writes: mpsc::Receiver<Queued>,
    group: Vec<Queued>,
    on_commit: F,
}

/// Why a session is no longer used.
enum End {
    /// There is nothing more to write.
    Done,
    Lost {
        reason: String,
        /// The server did not answer: what waits has waited long enough.
        is_late: bool,
    },
}

impl<F: Fn(Duration)> Writer<F> {
    async fn run(mut self) {
        let (mut lost_at, mut error) = (None, None);
        while let Some((session, mut lost)) = self.connect(error.take()).await {
            if let Some(seconds) = lost_at.take().map(|at: Instant| at.elapsed().as_secs()) {
                info!(seconds, "connected to the store again");
            }
            match self.serve(&session, &mut lost).await {
                End::Done => {
                    drop(session);
                    let _ = timeout(CLOSE_LIMIT, lost).await;
                    return;
                }
                End::Lost { reason, is_late } => {
                    warn!(error = reason, "the connection to the store was lost; connecting again");
                    lost_at = Some(Instant::now());
                    error = is_late.then(no_answer);
                }
            }
        }
    }

    /// Until then, writes fail with `error`, if there is one. `None` once there is nothing to write.
    async fn connect(&mut self, mut error: Option<Error>) -> Option<(Session, Lost)> {
        let mut retry_after = RETRY_AFTER_MIN;
        let mut logged = String::new();
        loop {
            let connector = self.connector.clone();
            match self.meanwhile(&mut error, open(&connector)).await? {
                Ok(session) => return Some(session),
                Err(failed) => {
                    let reason = failed.to_string();
                    // Each reason once.
                    if reason != logged {
                        warn!(
                            error = reason,
                            "cannot connect to the store; writes fail until then"
                        );
                    }
                    logged = reason;
                    error = Some(write_error(failed));
                }
            }
            self.meanwhile(&mut error, sleep(retry_after)).await?;
            retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
        }
    }

    /// Waits for `work`. Writes fail with this error meanwhile; without one they wait for the
    /// grace. `None` once there is nothing to write.
    async fn meanwhile<T>(
        &mut self,
        error: &mut Option<Error>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut grace = std::pin::pin!(sleep(GRACE));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                count = self.writes.recv_many(&mut self.group, GROUP_MAX), if error.is_some() => {
                    if count == 0 {
                        return None;
                    }
                    let error = error.clone().unwrap_or(Error::Closed);
                    queue::reply_to(mem::take(&mut self.group), Err(error));
                }
                () = &mut grace, if error.is_none() => {
                    *error = Some(no_answer());
                }
            }
        }
    }

    async fn serve(&mut self, session: &Session, lost: &mut Lost) -> End {
        loop {
            tokio::select! {
                biased;
                reason = &mut *lost => {
                    return End::Lost { reason: reason.unwrap_or_default(), is_late: false };
                }
                count = self.writes.recv_many(&mut self.group, GROUP_MAX) => {
                    if count == 0 {
                        return End::Done;
                    }
                }
            }
            let begun = Instant::now();
            let stored = session.store(mem::take(&mut self.group)).await;
            (self.on_commit)(begun.elapsed());
            queue::reply_to(stored.fenced, Err(Error::Fenced));
            match stored.committed {
                Ok(outcomes) => {
                    let has_news = outcomes.has_news();
                    queue::reply_to(stored.group, Ok(outcomes));
                    if has_news {
                        session.notify();
                    }
                }
                Err(failure) => {
                    let reason = failure.to_string();
                    let Failure { is_lost, is_late, .. } = failure;
                    // One failure fails the whole group: the usual cause is a full disk.
                    queue::reply_to(stored.group, Err(write_error(failure)));
                    if is_lost {
                        return End::Lost { reason, is_late };
                    }
                }
            }
        }
    }
}

async fn open(connector: &Connector) -> Result<(Session, Lost), ConnectError> {
    let (client, lost) = connector.connect_watched("writer").await?;
    let prepared = timeout(CLOSE_LIMIT, Session::new(client)).await;
    match prepared {
        Ok(Ok(session)) => Ok((session, lost)),
        Ok(Err(error)) => Err(ConnectError::passing(describe(&error))),
        Err(_) => Err(ConnectError::passing("the server does not answer")),
    }
}

fn no_answer() -> Error {
    write_error(ConnectError::passing("the server does not answer"))
}

fn write_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Write(DatabaseError::from(Box::new(error) as Box<dyn std::error::Error + Send + Sync>))
}
