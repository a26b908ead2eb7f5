//! The managers of a Swarm. Any of them answers for all: the one that last did is asked first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bollard::errors::Error as Bollard;
use tokio::time::timeout;

use super::error::{from_bollard, no_answer};
use crate::{
    config::EngineAddress,
    provider::{
        docker::connection::{self, Connection},
        error::{Error, ErrorKind},
    },
};

/// For one manager to answer. A change of the leader takes about 14 s.
const CALL_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Managers {
    all: Vec<Arc<Connection>>,
    current: AtomicUsize,
}

impl Managers {
    /// Sends nothing yet.
    pub(super) fn new(addresses: &[EngineAddress]) -> Self {
        let all = addresses.iter().map(|address| Arc::new(connection::open(address))).collect();
        Self { all, current: AtomicUsize::new(0) }
    }

    /// The one that answered last.
    pub(super) fn current(&self) -> Option<&Arc<Connection>> {
        self.all.get(self.current.load(Ordering::Relaxed))
    }

    /// Asks one manager after the other until one answers. `send` must be safe to repeat: a
    /// manager may have carried out what it did not answer.
    pub(super) async fn call<T, F>(
        &self,
        what: &str,
        send: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Bollard>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut failure = no_answer(what);
        for offset in 0..self.all.len() {
            let index = (first + offset) % self.all.len();
            // Boxed, because bollard's futures are large.
            let sent = Box::pin(send(Arc::clone(&self.all[index])));
            failure = match timeout(CALL_LIMIT, sent).await {
                Ok(Ok(value)) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(error)) => from_bollard(what, &error),
                Err(_) => no_answer(what),
            };
            if failure.kind != ErrorKind::Unavailable {
                self.current.store(index, Ordering::Relaxed);
                return Err(failure);
            }
        }
        Err(failure)
    }
}
