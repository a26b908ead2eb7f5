//! Removes what is left of runners that no longer exist: services, secrets, and what launchers that
//! ended early left on their nodes.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::query_parameters::{ListSecretsOptions, ListServicesOptions};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Swarm, reports,
    service::{Launcher, Nodes},
};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::{self, Labels},
    node_task::NodeTask,
    order::Placement,
    report::Report,
};

/// Between two sweeps of the nodes if nothing is known to be left there.
const NODES_EVERY: Duration = Duration::from_secs(3_600);
/// For all nodes.
const NODES_LIMIT: Duration = Duration::from_secs(60);

/// When the nodes are swept.
#[derive(Default)]
pub(super) struct NodeSweeps {
    wanted: AtomicBool,
    last: Mutex<Option<Instant>>,
}

impl NodeSweeps {
    /// Something may be left on a node.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn begins(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= NODES_EVERY);
        let begins = self.wanted.swap(false, Ordering::Relaxed) || due;
        if begins {
            *last = Some(Instant::now());
        }
        begins
    }
}

/// A service or a secret.
struct Found {
    name: String,
    /// Empty if it belongs to none.
    runner: String,
}

impl Swarm {
    pub(crate) async fn sweep<E: From<Error>>(
        &self,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
    ) -> Result<Vec<Error>, E> {
        let taken_at = SystemTime::now();
        let (services, secrets) = tokio::try_join!(self.services(), self.secrets())?;
        // After the lists: a launch is recorded before it creates anything. Tasks count too: a new
        // store has no records of them.
        let mut alive = alive.await?;
        let survey = self.shared.surveys.fresh().await?;
        alive.extend(survey.tasks.keys().cloned());
        alive.extend(self.shared.attendance.runners().into_iter().map(|(labels, _)| labels.runner));
        let mut failed = Vec::new();
        let is_left = |found: &&Found| match found.runner.is_empty() {
            true => !self.shared.helpers.contains(&found.name),
            false => !alive.contains(&found.runner),
        };
        let names: HashSet<&str> =
            services.iter().chain(&secrets).filter(is_left).map(|it| it.name.as_str()).collect();
        for name in names {
            info!(service = name, "removing a leftover");
            failed.extend(self.delete(name).await.err());
        }
        if self.shared.sweeps.begins()
            && let Err(error) = self.sweep_nodes(alive, taken_at, &mut failed).await
        {
            self.shared.sweeps.want();
            failed.push(error);
        }
        Ok(failed)
    }

    async fn services(&self) -> Result<Vec<Found>, Error> {
        let listed = self.shared.managers.call("list services", |connection| {
            let filters = Some(self.filters());
            async move {
                let options = ListServicesOptions { filters, status: None };
                connection.bollard.list_services(Some(options)).await
            }
        });
        let specs = listed.await?.into_iter().filter_map(|service| service.spec);
        Ok(specs.filter_map(|spec| self.found(spec.name, spec.labels)).collect())
    }

    async fn secrets(&self) -> Result<Vec<Found>, Error> {
        let listed =
            self.shared.managers.call("list secrets", |connection| {
                let filters = Some(self.filters());
                async move {
                    connection.bollard.list_secrets(Some(ListSecretsOptions { filters })).await
                }
            });
        let specs = listed.await?.into_iter().filter_map(|secret| secret.spec);
        Ok(specs.filter_map(|spec| self.found(spec.name, spec.labels)).collect())
    }

    fn filters(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{}={}", labels::INSTANCE, self.shared.instance);
        [("label".to_owned(), vec![label])].into()
    }

    fn found(&self, name: Option<String>, map: Option<HashMap<String, String>>) -> Option<Found> {
        let labels = Labels::from_map(&map?, &self.shared.instance)?;
        Some(Found { name: name?, runner: labels.runner })
    }

    /// Runs a launcher on every node that removes what no runner there needs.
    async fn sweep_nodes(
        &self,
        alive: HashSet<String>,
        taken_at: SystemTime,
        failed: &mut Vec<Error>,
    ) -> Result<(), Error> {
        let name = format!("{}-sweep", self.shared.instance);
        let _helper = self.shared.helpers.begin(&name);
        let labels = Labels { instance: self.shared.owner.clone(), ..Labels::default() };
        let taken_at = taken_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let order = NodeTask::Sweep {
            instance: self.shared.owner.clone(),
            alive,
            taken_at_unix_ms: u64::try_from(taken_at.as_millis()).unwrap_or(u64::MAX),
        };
        let launcher = Launcher {
            name: name.clone(),
            labels: &labels,
            nodes: Nodes::All,
            placement: Placement::default(),
            platform: None,
            reserved: Default::default(),
            stop_grace: Duration::ZERO,
            attends_on: None,
        };
        // One that an earlier process left.
        self.delete(&name).await?;
        self.create(&launcher, &order).await?;
        let nodes = self.nodes().await?;
        let expected = nodes.iter().filter(|node| node.may_launch()).count();
        let reports = reports::answers(&self.shared.managers, &name, expected, NODES_LIMIT).await;
        let swept = reports.len();
        for report in reports {
            match report {
                Report::Swept { removed, failed: errors } => {
                    if removed > 0 {
                        info!(removed, "a node was swept");
                    }
                    let errors = errors.into_iter();
                    failed
                        .extend(errors.map(|message| Error { kind: ErrorKind::Refused, message }));
                }
                Report::Failed { kind, message } => failed.push(Error { kind, message }),
                _ => {}
            }
        }
        if swept < expected {
            self.shared.sweeps.want();
            warn!(nodes = expected, swept, "some nodes have not reported that they are swept");
        }
        self.delete(&name).await
    }
}
