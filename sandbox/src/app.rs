//! The state that all request handlers share, and the tasks that send webhooks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::{DeliveryQueue, QueueTask};
use crate::sender::Sender;
use crate::state::State;

/// The longest that the end of a job waits for the webhook of its start.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(3);

pub(crate) struct App {
    state: Mutex<State>,
    /// Counts changes of the state, and wakes those who wait for one.
    changes: watch::Sender<u64>,
    sender: Sender,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl App {
    pub(crate) fn new(state: State, stop: CancellationToken) -> Arc<Self> {
        let sender = Sender::new(state.settings.webhook_roots.clone());
        Arc::new(Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            sender,
            stop,
            tasks: TaskTracker::new(),
        })
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    pub(crate) fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, tasks) = {
            let mut state = self.lock();
            let result = change(&mut state);
            (result, std::mem::take(&mut state.tasks))
        };
        self.changes.send_modify(|count| *count += 1);
        for task in tasks {
            self.start(task);
        }
        result
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until the webhooks of the job's events have been sent, unless they are delayed on
    /// purpose. Real jobs take seconds; without this, a short one could be over before the
    /// webhook of its start is, on a busy machine.
    pub(crate) async fn announced(&self, job: u64) {
        let sent = || {
            let busy =
                |state: &State| state.delivery_queues.get(&job).is_some_and(DeliveryQueue::is_busy);
            (!self.read(busy)).then_some(())
        };
        // After this time, the job ends all the same.
        self.wait_for(ANNOUNCED_WITHIN, sent).await;
    }

    /// Calls `check` now and after every change, until it returns a value. `None`: it did not
    /// within this time.
    pub(crate) async fn wait_for<T>(
        &self,
        within: Duration,
        mut check: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(value) = check() {
                    return Some(value);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(within, wait).await.ok().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, task: QueueTask) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let stop = app.stop.clone();
            let work = async {
                if !task.delay.is_zero() {
                    tokio::time::sleep(task.delay).await;
                }
                if task.release_held {
                    app.update(|state| {
                        if let Some(queue) = state.delivery_queues.get_mut(&task.queue) {
                            queue.release_held();
                        }
                    });
                }
                app.send_pending(task.queue).await;
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Sends the pending deliveries of a queue, unless another task is doing so.
    async fn send_pending(self: &Arc<Self>, id: u64) {
        loop {
            let next = {
                let mut state = self.lock();
                let url = state.settings.webhook_url.clone();
                let timeout = state.settings.delivery_timeout;
                let secret = state.settings.webhook_secret.clone();
                let Some(queue) = state.delivery_queues.get_mut(&id) else {
                    return;
                };
                if queue.sending {
                    return;
                }
                match (queue.pending.pop_front(), url) {
                    (Some(delivery), Some(url)) => {
                        queue.sending = true;
                        Some((delivery, url, timeout, secret))
                    }
                    _ => {
                        if queue.held.is_empty() {
                            state.delivery_queues.remove(&id);
                        }
                        None
                    }
                }
            };
            let Some((delivery, url, timeout, secret)) = next else {
                return;
            };
            let attempt = self.sender.send(&delivery, &url, &secret, timeout).await;
            self.update(|state| {
                state.record_attempt(delivery, attempt);
                if let Some(queue) = state.delivery_queues.get_mut(&id) {
                    queue.sending = false;
                }
            });
        }
    }
}
