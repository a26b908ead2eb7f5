//! What handlers share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sender::Sender;
use crate::state::{State, Task};

pub(crate) struct App {
    state: Mutex<State>,
    /// Counts changes, so that whoever waits for something looks again.
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

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, task: Task) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let stop = app.stop.clone();
            let work = async {
                match task {
                    Task::Drain(lane) => app.drain(lane).await,
                    Task::DrainAfter(lane, delay) => {
                        tokio::time::sleep(delay).await;
                        app.drain(lane).await;
                    }
                    Task::Release(lane, delay) => {
                        tokio::time::sleep(delay).await;
                        app.update(|state| {
                            if let Some(lane) = state.lanes.get_mut(&lane) {
                                lane.queue.extend(lane.held.drain(..));
                            }
                        });
                        app.drain(lane).await;
                    }
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Sends what is in a lane, unless another task is at it.
    async fn drain(self: &Arc<Self>, key: u64) {
        loop {
            let next = {
                let mut state = self.lock();
                let url = state.settings.webhook_url.clone();
                let timeout = state.settings.delivery_timeout;
                let secret = state.settings.webhook_secret.clone();
                let Some(lane) = state.lanes.get_mut(&key) else {
                    return;
                };
                if lane.sending {
                    return;
                }
                match (lane.queue.pop_front(), url) {
                    (Some(out), Some(url)) => {
                        lane.sending = true;
                        Some((out, url, timeout, secret))
                    }
                    _ => {
                        if lane.held.is_empty() {
                            state.lanes.remove(&key);
                        }
                        None
                    }
                }
            };
            let Some((out, url, timeout, secret)) = next else {
                return;
            };
            let sent = self.sender.send(&out, &url, &secret, timeout).await;
            self.update(|state| {
                state.record(out, sent);
                if let Some(lane) = state.lanes.get_mut(&key) {
                    lane.sending = false;
                }
            });
        }
    }
}
