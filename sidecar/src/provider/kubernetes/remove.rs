//! Removes a runner: its pod, and the Secret beside it.

use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use tokio::time::{Instant, sleep_until};

use super::{Kubernetes, error::error, seen::State};
use crate::provider::error::{Error, ErrorKind};

/// For the kubelet to notice, to stop the containers and to report that, beyond the grace period.
const MARGIN: Duration = Duration::from_secs(30);
/// For the API server to delete a pod without its kubelet.
const FORCED_WITHIN: Duration = Duration::from_secs(30);
/// Between two requests for a pod of which the watch says nothing new.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);

impl Kubernetes {
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let pods = &self.shared.pods;
        if pods.get(runner).is_none() {
            // The watch may not have seen it yet.
            let found = self.look_up(runner).await?;
            pods.looked_up(runner, found.as_ref());
            if found.is_some() && pods.get(runner).is_none() {
                // Another installation's, and so is the Secret of that name.
                return Ok(());
            }
        }
        if let Some(seen) = pods.get(runner) {
            self.delete(runner, &seen.id, Some(grace)).await?;
            // A node that does not answer never reports that a pod has stopped.
            let margin = if seen.state == State::Unreachable { Duration::ZERO } else { MARGIN };
            if !self.gone_within(runner, &seen.id, grace + margin).await? {
                self.delete(runner, &seen.id, None).await?;
                if !self.gone_within(runner, &seen.id, FORCED_WITHIN).await? {
                    let what = "the pod is still there, although it was deleted by force: does it \
                                have a finalizer?";
                    return Err(error(
                        ErrorKind::Refused,
                        &format!("remove runner {runner}"),
                        what,
                    ));
                }
            }
        }
        // The garbage collector would do it later: it holds credentials.
        let call = format!("delete the secret of {runner}");
        let deleted = self.shared.cluster.call(&call, |connected| async move {
            absent_is_fine(connected.secrets().delete(runner, &DeleteParams::default()).await)
        });
        deleted.await
    }

    /// `grace`: `None` deletes the pod without waiting for its node.
    async fn delete(&self, runner: &str, id: &str, grace: Option<Duration>) -> Result<(), Error> {
        let call = format!("delete pod {runner}");
        let seconds = grace.map_or(0, |grace| (grace.as_secs_f64().ceil() as u32).max(1));
        let parameters = DeleteParams::default()
            .grace_period(seconds)
            .preconditions(Preconditions { uid: Some(id.to_owned()), resource_version: None });
        let deleted = self.shared.cluster.call(&call, |connected| {
            let parameters = parameters.clone();
            async move { absent_is_fine(connected.pods().delete(runner, &parameters).await) }
        });
        deleted.await
    }

    async fn gone_within(&self, runner: &str, id: &str, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        let pods = &self.shared.pods;
        let mut changes = pods.subscribe();
        loop {
            changes.borrow_and_update();
            if pods.get(runner).is_none_or(|seen| seen.id != id) {
                return Ok(true);
            }
            let look_up_at = Instant::now() + LOOK_UP_EVERY;
            tokio::select! {
                // The sender lives as long as this does.
                _ = changes.changed() => {}
                () = sleep_until(look_up_at.min(deadline)) => {
                    let found = self.look_up(runner).await?;
                    pods.looked_up(runner, found.as_ref());
                    let is_gone = pods.get(runner).is_none_or(|seen| seen.id != id);
                    if is_gone || Instant::now() >= deadline {
                        return Ok(is_gone);
                    }
                }
            }
        }
    }
}

fn absent_is_fine<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        // The pod of that UID is gone, and there is another one.
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
        deleted => deleted.map(|_| ()),
    }
}
