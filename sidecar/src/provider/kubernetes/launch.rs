//! Launches a runner: creates its pod and the Secret beside it, and waits until the runner runs.

use std::time::Duration;

use kube::api::PostParams;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Kubernetes,
    error::{error, is_quota},
    pod::pod,
    secret::secret,
    seen::State,
};
use crate::provider::{
    OnWait,
    error::{Error, ErrorKind},
    instance::Launched,
    order::Order,
};
use k8s_openapi::api::core::v1::Pod;

/// Until a pod is asked for again that a quota did not permit.
const QUOTA_PAUSE: Duration = Duration::from_secs(10);
/// Until a pod is looked up of which the watch says nothing new.
const LOOK_UP_AFTER: Duration = Duration::from_secs(15);
/// How long a node may report a problem that may pass.
const DOUBTFUL_MAX: Duration = Duration::from_secs(20);

/// What came of a request for a pod.
enum Creation {
    Created(Box<Pod>),
    Exists,
    /// A quota does not permit it now.
    NoRoom(String),
}

impl Kubernetes {
    /// The pod comes first, so that it can own the Secret: whatever else fails, nothing is left
    /// once the pod is removed. Its node waits for the Secret.
    pub(crate) async fn launch(
        &self,
        order: &Order,
        on_wait: OnWait<'_>,
    ) -> Result<Launched, Error> {
        let created = self.create_pod(order, on_wait).await?;
        self.shared.pods.created(&created);
        self.create_secret(order, &created).await?;
        self.started(&order.labels.runner, on_wait).await
    }

    async fn create_pod(&self, order: &Order, on_wait: OnWait<'_>) -> Result<Pod, Error> {
        let runner = &order.labels.runner;
        let call = format!("create pod {runner}");
        let mut waits = false;
        loop {
            let owner = self.shared.owner.reference(&self.shared.cluster).await?;
            let body = pod(order, &owner).map_err(|it| error(ErrorKind::Refused, &call, it))?;
            let created = self.shared.cluster.call(&call, |connected| {
                let body = &body;
                async move {
                    match connected.pods().create(&PostParams::default(), body).await {
                        Ok(pod) => Ok(Creation::Created(Box::new(pod))),
                        Err(kube::Error::Api(status)) if status.is_already_exists() => {
                            Ok(Creation::Exists)
                        }
                        Err(kube::Error::Api(status)) if is_quota(&status) => {
                            Ok(Creation::NoRoom(status.message))
                        }
                        Err(error) => Err(error),
                    }
                }
            });
            let created = match created.await? {
                Creation::Created(pod) => *pod,
                Creation::Exists => self.existing(order, &call).await?,
                Creation::NoRoom(message) => {
                    if !waits {
                        on_wait(Some(message));
                        waits = true;
                    }
                    sleep(QUOTA_PAUSE).await;
                    continue;
                }
            };
            if waits {
                on_wait(None);
            }
            return Ok(created);
        }
    }

    /// By an earlier try whose answer was lost.
    async fn existing(&self, order: &Order, call: &str) -> Result<Pod, Error> {
        let runner = &order.labels.runner;
        let found = self.look_up(runner).await?;
        let is_ours = found
            .as_ref()
            .and_then(|pod| self.shared.pods.read(pod))
            .is_some_and(|it| it.labels.launched_unix_ms == order.labels.launched_unix_ms);
        match found.filter(|_| is_ours) {
            Some(pod) => Ok(pod),
            None => Err(error(ErrorKind::Refused, call, "there is another pod of this name")),
        }
    }

    async fn create_secret(&self, order: &Order, pod: &Pod) -> Result<(), Error> {
        let call = format!("create the secret of {}", order.labels.runner);
        let body = secret(order, pod);
        let created = self.shared.cluster.call(&call, |connected| {
            let body = &body;
            async move {
                match connected.secrets().create(&PostParams::default(), body).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                    created => created.map(|_| ()),
                }
            }
        });
        created.await
    }

    async fn started(&self, runner: &str, on_wait: OnWait<'_>) -> Result<Launched, Error> {
        let call = format!("launch {runner}");
        let pods = &self.shared.pods;
        let mut changes = pods.subscribe();
        let mut waits: Option<String> = None;
        let mut doubtful: Option<(Instant, String)> = None;
        let mut look_up_at = Instant::now() + LOOK_UP_AFTER;
        loop {
            changes.borrow_and_update();
            let Some(seen) = pods.get(runner) else {
                return Err(error(ErrorKind::Gone, &call, "its pod was deleted"));
            };
            let no_room = match &seen.state {
                State::Unscheduled(why) => why.clone(),
                _ => None,
            };
            if no_room != waits {
                on_wait(no_room.clone());
                waits = no_room;
            }
            match &seen.state {
                State::Doubtful(why) => {
                    let since = doubtful.take().map_or_else(Instant::now, |(since, _)| since);
                    doubtful = Some((since, why.clone()));
                }
                _ => doubtful = None,
            }
            match &seen.state {
                State::Unscheduled(_) | State::Starting | State::Doubtful(_) => {}
                State::Running | State::Unreachable | State::Exited(_) => {
                    return Ok(Launched { id: seen.id.clone(), node: seen.node.clone() });
                }
                State::Stuck { kind, message } => return Err(error(*kind, &call, message)),
                State::Ended(why) => return Err(error(ErrorKind::Refused, &call, why)),
                State::Deleted => {
                    return Err(error(ErrorKind::Gone, &call, "its pod was deleted"));
                }
            }
            let give_up_at = doubtful.as_ref().map(|(since, _)| *since + DOUBTFUL_MAX);
            let wake_at = give_up_at.map_or(look_up_at, |at| at.min(look_up_at));
            tokio::select! {
                // The sender lives as long as this does.
                _ = changes.changed() => {}
                () = sleep_until(wake_at) => {
                    if let Some((since, why)) = &doubtful
                        && since.elapsed() >= DOUBTFUL_MAX
                    {
                        return Err(error(ErrorKind::Refused, &call, why));
                    }
                    // The watch may hang, or be away; then this is, too.
                    if let Ok(found) = self.look_up(runner).await {
                        pods.looked_up(runner, found.as_ref());
                    }
                    look_up_at = Instant::now() + LOOK_UP_AFTER;
                }
            }
        }
    }

    /// The pod as it is now, of whichever installation.
    pub(super) async fn look_up(&self, runner: &str) -> Result<Option<Pod>, Error> {
        let call = format!("read pod {runner}");
        let found = self
            .shared
            .cluster
            .call(&call, |connected| async move { connected.pods().get_opt(runner).await });
        found.await
    }
}
