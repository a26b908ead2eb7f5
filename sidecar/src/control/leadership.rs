//! The right to plan: of the only sidecar of a store, for ever; of several that share one, of the
//! one that holds the lease, until its term ends.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{control::clock, store::Term};
use edgerunner_scheduler::model::Instant;

/// Cheap to clone; clones are the same right.
#[derive(Clone)]
pub(crate) struct Leadership {
    term: Option<Term>,
    /// By the monotonic clock.
    until: Arc<Mutex<Instant>>,
    ended: CancellationToken,
}

impl Leadership {
    /// Of a sidecar that shares its store with none.
    pub(crate) fn permanent() -> Self {
        Self::new(None, Instant::MAX)
    }

    pub(crate) fn of_term(term: Term, until: Instant) -> Self {
        Self::new(Some(term), until)
    }

    fn new(term: Option<Term>, until: Instant) -> Self {
        Self { term, until: Arc::new(Mutex::new(until)), ended: CancellationToken::new() }
    }

    /// `None` if no other sidecar shares the store.
    pub(crate) fn term(&self) -> Option<Term> {
        self.term
    }

    /// Whether it may be used at this moment.
    pub(crate) fn is_held(&self) -> bool {
        !self.ended.is_cancelled() && clock::now().instant < self.until()
    }

    /// For how long, unless it is prolonged.
    pub(crate) fn left(&self) -> Duration {
        self.until().duration_since(clock::now().instant)
    }

    pub(crate) fn prolong(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// For good.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves after [`Self::end`].
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Runs work for as long as the right is held, and drops it then. The clock is read before
    /// each step: a process that was stopped in the meantime does not go on.
    pub(crate) fn run_while_held<W: Future>(
        &self,
        work: W,
    ) -> impl Future<Output = Option<W::Output>> + use<W> {
        let this = self.clone();
        async move {
            let mut ended = pin!(this.ended.cancelled());
            let mut work = pin!(work);
            poll_fn(|context| {
                if ended.as_mut().poll(context).is_ready() || !this.is_held() {
                    return Poll::Ready(None);
                }
                work.as_mut().poll(context).map(Some)
            })
            .await
        }
    }

    /// Like [`Self::run_while_held`], for a task of a [`Supervisor`](super::supervisor::Supervisor):
    /// once the right has ended, it waits to be aborted.
    pub(crate) fn run_endless<T: Future<Output = ()>>(
        &self,
        task: T,
    ) -> impl Future<Output = ()> + use<T> {
        let held = self.run_while_held(task);
        async move {
            if held.await.is_none() {
                pending::<()>().await;
            }
        }
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    fn in_a_minute() -> Instant {
        clock::now().instant + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn work_runs_until_the_term_ends() {
        let leadership = Leadership::of_term(Term(7), in_a_minute());
        assert_eq!(leadership.run_while_held(ready(1)).await, Some(1));
        let work = tokio::spawn(leadership.run_while_held(pending::<()>()));
        leadership.end();
        assert_eq!(work.await.unwrap(), None);
        assert_eq!(leadership.run_while_held(ready(1)).await, None);
    }

    #[tokio::test]
    async fn nothing_goes_on_once_its_time_is_over() {
        let leadership = Leadership::of_term(Term(7), in_a_minute());
        let mut steps = 0;
        let work = async {
            loop {
                steps += 1;
                // As if the process had been stopped here for longer than the term.
                leadership.prolong(clock::now().instant);
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(leadership.run_while_held(work).await, None::<()>);
        assert_eq!(steps, 1);
        leadership.prolong(in_a_minute());
        assert!(leadership.is_held() && leadership.left() > Duration::from_secs(50));
    }
}
