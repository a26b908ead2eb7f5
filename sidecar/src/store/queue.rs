//! The write queue, between the callers of a store and its writer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use edgerunner_scheduler::{
    model::{JobKey, UnixMs},
    plan::Waiting,
};

use super::{
    error::{DatabaseError, Error},
    records::{Delivery, JobUpdate, RunnerRecord, StoreOutcome, WebhookRecord},
};

/// Writes that may be queued. When the queue is full, callers get [`Error::Busy`] and retry:
/// better than a queue that outlasts their deadline.
const QUEUED_WRITES_MAX: usize = 4096;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub(super) enum Write {
    Deliveries(Arc<[Delivery]>, Reply<Vec<StoreOutcome>>),
    Job(JobUpdate, Reply<()>),
    Waiting(Vec<(JobKey, Waiting)>, Reply<()>),
    Runner(Box<RunnerRecord>, Reply<()>),
    RunnerLog {
        runner: String,
        log: String,
        reply: Reply<()>,
    },
    Draining {
        pool: Option<String>,
        draining: bool,
        reply: Reply<()>,
    },
    Webhook(WebhookRecord, Reply<()>),
    /// The reply says whether more is left to delete.
    Prune(UnixMs, Reply<bool>),
}

/// What a group of writes did.
#[derive(Default)]
pub(super) struct Outcomes {
    /// Of each delivery, in order.
    pub(super) deliveries: Vec<StoreOutcome>,
    /// Whether pruning has more to delete.
    pub(super) more_to_prune: bool,
}

/// The callers' end.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Write>);

impl Queue {
    /// The receiver is the writer's end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Write>) {
        let (sender, receiver) = mpsc::channel(QUEUED_WRITES_MAX);
        (Self(sender), receiver)
    }

    /// Queues a write at once. The future resolves after its commit.
    pub(super) fn push<T: Send, W: FnOnce(Reply<T>) -> Write>(
        &self,
        write: W,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T, W> {
        let (reply, response) = oneshot::channel();
        let queued = self.0.try_send(write(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        });
        async move {
            queued?;
            response.await.map_err(|_| Error::Closed)?
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        QUEUED_WRITES_MAX - self.0.capacity()
    }
}

/// Replies to the callers of a group of writes after its transaction, with its outcomes or with
/// the error that failed them all.
pub(super) fn reply_to(group: Vec<Write>, committed: Result<Outcomes, DatabaseError>) {
    let more_to_prune = committed.as_ref().is_ok_and(|outcomes| outcomes.more_to_prune);
    let mut committed = committed.map(|outcomes| outcomes.deliveries.into_iter());
    for write in group {
        let outcomes = match &mut committed {
            Ok(outcomes) => Ok(outcomes),
            Err(error) => Err(Error::Write(Arc::clone(error))),
        };
        // A caller that no longer waits needs no reply.
        match write {
            Write::Deliveries(deliveries, reply) => {
                let outcomes = outcomes.map(|all| all.take(deliveries.len()).collect());
                drop(reply.send(outcomes));
            }
            Write::Job(_, reply)
            | Write::Waiting(_, reply)
            | Write::Runner(_, reply)
            | Write::RunnerLog { reply, .. }
            | Write::Draining { reply, .. }
            | Write::Webhook(_, reply) => drop(reply.send(outcomes.map(|_| ()))),
            Write::Prune(_, reply) => drop(reply.send(outcomes.map(|_| more_to_prune))),
        }
    }
}
