//! All pods of this installation, as the API server last reported them: listed once, then watched.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::warn;

use super::{
    cluster::Cluster,
    error::{error, from_kube},
    seen::{KILLED, Seen, State},
};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::Exit,
    labels,
};

/// The API server ends a watch then, and another begins. A connection that is dead without anybody
/// knowing is noticed a few seconds later.
const WATCH_SECONDS: u32 = 60;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Pods {
    instance: String,
    known: Mutex<Known>,
    /// A number that grows with every change.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    /// By runner.
    pods: HashMap<String, Arc<Seen>>,
    watchers: Vec<mpsc::UnboundedSender<Result<Exit, Error>>>,
}

impl Pods {
    pub(super) fn new(instance: &str) -> Self {
        let (known, changes) = (Mutex::default(), watch::Sender::new(0));
        Self { instance: instance.to_owned(), known, changes }
    }

    /// Of every pod of the installation.
    pub(super) fn selector(&self) -> String {
        format!("{}={}", labels::INSTANCE, self.instance)
    }

    pub(super) fn read(&self, pod: &Pod) -> Option<Seen> {
        Seen::of(pod, &self.instance)
    }

    pub(super) fn get(&self, runner: &str) -> Option<Arc<Seen>> {
        self.known().pods.get(runner).cloned()
    }

    /// Changes from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A pod as it is now, unless the watch knows it already: that is never older than the pod's
    /// creation.
    pub(super) fn created(&self, pod: &Pod) {
        if let Some(seen) = self.read(pod) {
            self.known().pods.entry(seen.labels.runner.clone()).or_insert_with(|| Arc::new(seen));
        }
    }

    /// A pod as it is now, or that it is gone.
    pub(super) fn looked_up(&self, runner: &str, pod: Option<&Pod>) {
        match pod.and_then(|pod| self.read(pod)) {
            Some(seen) => self.apply(seen),
            None => self.remove(runner),
        }
    }

    pub(super) fn exits(&self) -> impl Stream<Item = Result<Exit, Error>> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.known().watchers.push(sender);
        UnboundedReceiverStream::new(receiver)
    }

    /// Watches for as long as the process lives.
    pub(super) async fn keep_up(self: Arc<Self>, cluster: Arc<Cluster>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match cluster.connected().await {
                Ok(connected) => {
                    let config = watcher::Config::default().labels(&self.selector());
                    let events = watcher(connected.pods(), config.timeout(WATCH_SECONDS));
                    self.follow(events, &mut pause).await;
                }
                Err(error) => self.failed(&error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns when the watch has to begin again with a list.
    async fn follow(
        &self,
        events: impl Stream<Item = Result<Event<Pod>, watcher::Error>>,
        pause: &mut Duration,
    ) {
        const CALL: &str = "watch pods";
        let mut events = std::pin::pin!(events);
        // While the list arrives, the runners that it has.
        let mut listed: Option<HashSet<String>> = None;
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    if !matches!(event, Event::Init) {
                        *pause = FIRST_PAUSE;
                    }
                    self.handle(event, &mut listed);
                    continue;
                }
                // It began too long ago: expected after a break, and followed by a list.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => continue,
                Err(watcher::Error::WatchError(status)) => {
                    from_kube(CALL, &kube::Error::Api(status))
                }
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status)))
                    if status.code == 410 =>
                {
                    return;
                }
                Err(
                    watcher::Error::InitialListFailed(cause)
                    | watcher::Error::WatchStartFailed(cause)
                    | watcher::Error::WatchFailed(cause),
                ) => from_kube(CALL, &cause),
                Err(watcher::Error::NoResourceVersion) => {
                    error(ErrorKind::Unavailable, CALL, "the response has no resourceVersion")
                }
            };
            self.failed(&error);
            sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn handle(&self, event: Event<Pod>, listed: &mut Option<HashSet<String>>) {
        match event {
            Event::Init => *listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let (Some(listed), Some(name)) = (listed.as_mut(), &pod.metadata.name) {
                    listed.insert(name.clone());
                }
                self.changed(&pod);
            }
            Event::InitDone => {
                if let Some(listed) = listed.take() {
                    let known = self.known().pods.keys().cloned().collect::<Vec<_>>();
                    known.iter().filter(|it| !listed.contains(*it)).for_each(|it| self.remove(it));
                }
            }
            Event::Apply(pod) => self.changed(&pod),
            Event::Delete(pod) => {
                // It may show how the runner ended.
                self.changed(&pod);
                self.remove(&pod.metadata.name.unwrap_or_default());
            }
        }
    }

    fn changed(&self, pod: &Pod) {
        if let Some(seen) = self.read(pod) {
            self.apply(seen);
        }
    }

    fn apply(&self, seen: Seen) {
        let runner = seen.labels.runner.clone();
        let status = seen.state.is_over().then(|| seen.state.exit_status());
        if let State::Ended(why) = &seen.state {
            let was_known = self.get(&runner).is_some_and(|before| before.state == seen.state);
            if !was_known {
                warn!(runner, why, "the pod of a runner ended early");
            }
        }
        let mut known = self.known();
        let before = known.pods.insert(runner.clone(), Arc::new(seen));
        let was_over = before.is_some_and(|before| before.state.is_over());
        if let Some(status) = status.filter(|_| !was_over) {
            known.exited(Exit { runner, status });
        }
        drop(known);
        self.changes.send_modify(|number| *number += 1);
    }

    fn remove(&self, runner: &str) {
        let mut known = self.known();
        let Some(before) = known.pods.remove(runner) else { return };
        if matches!(before.state, State::Running | State::Unreachable) {
            known.exited(Exit { runner: runner.to_owned(), status: KILLED.into() });
        }
        drop(known);
        self.changes.send_modify(|number| *number += 1);
    }

    fn failed(&self, error: &Error) {
        for watcher in self.known().watchers.drain(..) {
            let _ = watcher.send(Err(error.clone()));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn exited(&mut self, exit: Exit) {
        self.watchers.retain(|watcher| watcher.send(Ok(exit.clone())).is_ok());
    }
}
