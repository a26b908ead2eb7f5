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
    /// `launched_before_unix_ms`, and leftovers of runners that are not in `alive`. Spares all
    /// runners whose launchers run on this node. One bad item does not stop the others.
    pub(crate) async fn sweep_unknown(
        &self,
        alive: HashSet<String>,
        launched_before_unix_ms: u64,
    ) -> Swept {
        let mut swept = Swept::default();
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
        let label = format!("{}={}", labels::LAUNCHER, self.instance);
        let launchers = self.list_filtered(("label".to_owned(), vec![label])).await?.into_iter();
        let here = launchers.filter(|launcher| !has_ended(&launcher.state));
        Ok(here.filter_map(|mut launcher| launcher.labels.remove(labels::RUNNER)).collect())
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
