//! The write queue, between the callers of a store and its writer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use edgerunner_scheduler::{
    model::{JobKey, RunOrigin, UnixMs},
    plan::Waiting,
};

use super::{
    error::Error,
    lost::Rerun,
    records::{
        AuditRecord, Delivery, ImageRecord, JobUpdate, RunnerRecord, StoreOutcome, Term,
        WebhookRecord,
    },
};

/// Writes that may be queued. When the queue is full, callers get [`Error::Busy`] and retry:
/// better than a queue that outlasts their deadline.
const QUEUED_WRITES_MAX: usize = 4096;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A write on its way to the writer.
pub(super) struct Queued {
    pub(super) write: Write,
    /// It is carried out only in this term, if there is one.
    pub(super) term: Option<Term>,
}

pub(super) enum Write {
    Deliveries(Arc<[Delivery]>, Reply<Vec<StoreOutcome>>),
    Job(JobUpdate, Reply<()>),
    Waiting(Vec<(JobKey, Waiting)>, Reply<()>),
    Origins(Vec<(JobKey, RunOrigin)>, Reply<()>),
    Rerun(Rerun, Reply<()>),
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
    Image(ImageRecord, Reply<()>),
    ImageGone {
        engine: String,
        id: String,
        reply: Reply<()>,
    },
    Webhook(WebhookRecord, Reply<()>),
    Audit(AuditRecord, Reply<()>),
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
pub(super) struct Queue {
    sender: mpsc::Sender<Queued>,
    term: Option<Term>,
}

impl Queue {
    /// The receiver is the writer's end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(QUEUED_WRITES_MAX);
        (Self { sender, term: None }, receiver)
    }

    /// The same queue, for writes of this term.
    pub(super) fn fenced(&self, term: Term) -> Self {
        Self { term: Some(term), ..self.clone() }
    }

    /// Queues a write at once. The future resolves after its commit.
    pub(super) fn push<T: Send, W: FnOnce(Reply<T>) -> Write>(
        &self,
        write: W,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T, W> {
        let (reply, response) = oneshot::channel();
        let queued = Queued { write: write(reply), term: self.term };
        let queued = self.sender.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        });
        async move {
            queued?;
            response.await.map_err(|_| Error::Closed)?
        }
    }

    pub(super) fn len(&self) -> usize {
        QUEUED_WRITES_MAX - self.sender.capacity()
    }
}

/// Replies to the callers of a group of writes after its transaction, with its outcomes or with
/// the error that failed them all.
pub(super) fn reply_to(group: Vec<Queued>, committed: Result<Outcomes, Error>) {
    let more_to_prune = committed.as_ref().is_ok_and(|outcomes| outcomes.more_to_prune);
    let mut committed = committed.map(|outcomes| outcomes.deliveries.into_iter());
    for Queued { write, .. } in group {
        let outcomes = match &mut committed {
            Ok(outcomes) => Ok(outcomes),
            Err(error) => Err(error.clone()),
        };
        // A caller that no longer waits needs no reply.
        match write {
            Write::Deliveries(deliveries, reply) => {
                let outcomes = outcomes.map(|all| all.take(deliveries.len()).collect());
                drop(reply.send(outcomes));
            }
            Write::Job(_, reply)
            | Write::Waiting(_, reply)
            | Write::Origins(_, reply)
            | Write::Rerun(_, reply)
            | Write::Runner(_, reply)
            | Write::RunnerLog { reply, .. }
            | Write::Draining { reply, .. }
            | Write::Image(_, reply)
            | Write::ImageGone { reply, .. }
            | Write::Audit(_, reply)
            | Write::Webhook(_, reply) => drop(reply.send(outcomes.map(|_| ()))),
            Write::Prune(_, reply) => drop(reply.send(outcomes.map(|_| more_to_prune))),
        }
    }
}
