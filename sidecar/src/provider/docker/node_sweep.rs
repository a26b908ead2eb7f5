//! Removes what launchers that ended early left on their node.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use tracing::info;

use super::{Docker, is_dind, leftovers::Swept, list::Listed};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::{self, Labels},
};

/// For a runner that nobody knows any more.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Docker {
    /// Removes runners that ended before `before`, and leftovers. Spares `own` and all runners
    /// whose launchers run on this node. One bad item does not stop the others.
    pub(crate) async fn sweep_ended(&self, own: &str, before: Timestamp) -> Swept {
        let mut swept = Swept::default();
        match self.without_launcher().await {
            Ok(containers) => {
                let others = containers.into_iter().filter(|it| it.runner != own);
                for Unattended { runner, container, .. } in others.filter(Unattended::has_ended) {
                    match self.ended_at(&container.id).await {
                        Ok(Some(ended_at)) if ended_at < before => {
                            self.remove_swept(&mut swept, &runner).await;
                        }
                        Ok(_) => {}
                        Err(error) => swept.failed.push(error),
                    }
                }
            }
            Err(error) => swept.failed.push(error),
        }
        self.add_leftovers(swept, HashSet::from([own.to_owned()])).await
    }

    /// Removes runners, in any state, that are not in `alive` and were launched before
    /// `launched_before_unix_ms`, leftovers of runners that are not in `alive`, and their launchers
    /// that ended before then. Spares all runners whose launchers run on this node. One bad item
    /// does not stop the others.
    pub(crate) async fn sweep_unknown(
        &self,
        alive: HashSet<String>,
        launched_before_unix_ms: u64,
    ) -> Swept {
        let mut swept = Swept::default();
        self.sweep_ways_out(&mut swept).await;
        self.sweep_launchers(&mut swept, &alive, launched_before_unix_ms).await;
        match self.without_launcher().await {
            Ok(containers) => {
                let unknown = containers.into_iter().filter(|it| {
                    !alive.contains(&it.runner) && it.launched_unix_ms < launched_before_unix_ms
                });
                for Unattended { runner, .. } in unknown {
                    self.remove_swept(&mut swept, &runner).await;
                }
            }
            Err(error) => swept.failed.push(error),
        }
        self.add_leftovers(swept, alive).await
    }

    /// Docker Swarm leaves a launcher that ended on its node if the Engine was down when the service
    /// was removed.
    async fn sweep_launchers(
        &self,
        swept: &mut Swept,
        alive: &HashSet<String>,
        before_unix_ms: u64,
    ) {
        let before = i64::try_from(before_unix_ms).unwrap_or(i64::MAX);
        let before = Timestamp::from_millisecond(before).unwrap_or(Timestamp::MAX);
        let launchers = match self.list_launchers().await {
            Ok(launchers) => launchers,
            Err(error) => return swept.failed.push(error),
        };
        let idle = |launcher: &Listed| has_ended(&launcher.state) || launcher.state == "created";
        for launcher in launchers.iter().filter(|launcher| idle(launcher)) {
            if launcher.labels.get(labels::RUNNER).is_some_and(|runner| alive.contains(runner)) {
                continue;
            }
            match self.idle_since(&launcher.id).await {
                Ok(Some(since)) if since < before => {
                    info!(container = launcher.id, "removing a launcher without a service");
                    swept.add(self.delete_container(&launcher.id).await);
                }
                Ok(_) => {}
                Err(error) => swept.failed.push(error),
            }
        }
    }

    async fn remove_swept(&self, swept: &mut Swept, runner: &str) {
        info!(runner, "removing a runner without a launcher");
        swept.add(self.remove(runner, STOP_GRACE).await);
    }

    async fn add_leftovers(&self, mut swept: Swept, mut alive: HashSet<String>) -> Swept {
        let alive = async {
            alive.extend(self.launchers().await?);
            Ok::<_, Error>(alive)
        };
        match self.sweep_leftovers(alive).await {
            Ok(leftovers) => {
                swept.removed += leftovers.removed;
                swept.failed.extend(leftovers.failed);
            }
            Err(error) => swept.failed.push(error),
        }
        swept
    }

    /// Containers of runners whose launchers are not on this node.
    async fn without_launcher(&self) -> Result<Vec<Unattended>, Error> {
        // Launchers after containers: a launcher runs before it creates its runner.
        let containers = self.list_containers(None).await?.into_iter();
        let launchers = self.launchers().await?;
        let runners = containers.filter(|container| !is_dind(&container.labels));
        let runners = runners.filter_map(|container| {
            let Labels { runner, launched_unix_ms, .. } =
                Labels::from_map(&container.labels, &self.instance)?;
            Some(Unattended { runner, launched_unix_ms, container })
        });
        Ok(runners.filter(|it| !launchers.contains(&it.runner)).collect())
    }

    /// The runners whose launchers are on this node and have not ended.
    async fn launchers(&self) -> Result<HashSet<String>, Error> {
        let launchers = self.list_launchers().await?.into_iter();
        let here = launchers.filter(|launcher| !has_ended(&launcher.state));
        Ok(here.filter_map(|mut launcher| launcher.labels.remove(labels::RUNNER)).collect())
    }

    /// The containers of all launchers on this node, in any state.
    async fn list_launchers(&self) -> Result<Vec<Listed>, Error> {
        let label = format!("{}={}", labels::LAUNCHER, self.instance);
        self.list_filtered(("label".to_owned(), vec![label])).await
    }

    /// Since when a container that does not run exists or has ended; `None` as for
    /// [`Self::ended_at`].
    async fn idle_since(&self, container: &str) -> Result<Option<Timestamp>, Error> {
        match self.inspect(container).await {
            Ok(found) => {
                let parse = |text: Option<String>| text.and_then(|text| text.parse().ok());
                let created_at: Option<Timestamp> = parse(found.created);
                // Of one that never started, it is in the year 1.
                let ended_at = parse(found.state.and_then(|state| state.finished_at));
                Ok(created_at.max(ended_at))
            }
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` if the container no longer exists, or if Docker does not say it.
    async fn ended_at(&self, container: &str) -> Result<Option<Timestamp>, Error> {
        match self.inspect(container).await {
            Ok(found) => {
                let ended_at = found.state.and_then(|state| state.finished_at);
                Ok(ended_at.and_then(|ended_at| ended_at.parse().ok()))
            }
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A runner's container that no launcher on this node waits for.
struct Unattended {
    runner: String,
    launched_unix_ms: u64,
    container: Listed,
}

impl Unattended {
    fn has_ended(&self) -> bool {
        has_ended(&self.container.state)
    }
}

/// A state as lists of containers show it.
fn has_ended(state: &str) -> bool {
    matches!(state, "exited" | "dead" | "removing")
}
