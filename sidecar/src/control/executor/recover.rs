//! Finds out which runners exist: at the start, periodically, and by their exits.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tracing::error;

use super::{Executor, RETRY_AFTER};
use crate::{
    control::clock,
    provider::{self, Exit, Instance, InstanceState, Labels},
    store::RunnerRecord,
};
use edgerunner_scheduler::{
    model::Host,
    plan::{Adopted, AdoptedContainer, Event},
};

impl Executor {
    /// Adopts the runners of an earlier process, then watches for exits. Never ends.
    pub(crate) async fn recover_and_watch(self, records: Vec<RunnerRecord>) {
        self.recover(records).await;
        self.watch().await;
    }

    /// Adopts the runners of an earlier process: those in the store, and those that only the
    /// provider knows. Retries until the provider answers.
    pub(super) async fn recover(&self, records: Vec<RunnerRecord>) {
        let listed = loop {
            match self.list().await {
                Ok(listed) => break listed,
                Err(_) => sleep(RETRY_AFTER).await,
            }
        };
        let mut instances: HashMap<String, Adopted> =
            listed.into_iter().map(|instance| (instance.runner.clone(), instance)).collect();
        for record in records {
            let instance = instances.remove(&record.name);
            let Ok(target) = record.target.parse() else {
                error!(runner = record.name, target = record.target, "unreadable target in store");
                continue;
            };
            let adopted = Adopted {
                runner: record.name,
                pool: record.pool,
                target: self.shared.clients.on_server(target, record.host),
                registration_id: record.registration_id,
                job: record.job,
                created_at: record.created_at,
                container: instance
                    .map_or(AdoptedContainer::Missing, |instance| instance.container),
            };
            self.send(Event::Adopted(adopted)).await;
        }
        for (name, instance) in instances {
            let event = match self.shared.store.runner(name).await {
                Ok(Some(found)) if found.runner.gone_at.is_some() => {
                    Event::OnRecordAsGone(instance)
                }
                Ok(_) => Event::Adopted(instance),
                Err(error) => {
                    error!(%error, "the record of a container's runner cannot be read");
                    Event::Adopted(instance)
                }
            };
            self.send(event).await;
        }
        self.send(Event::Recovered).await;
    }

    /// Reports exits for as long as the process lives. Begins once everything is adopted: an
    /// exit before that would belong to no runner.
    async fn watch(&self) {
        loop {
            let mut exits = self.shared.provider.exits();
            // Exits that happened while nobody watched.
            self.clone().survey().await;
            while let Some(exit) = exits.next().await {
                match exit {
                    Ok(Exit { runner, code }) => {
                        self.send(Event::ContainerExited { runner, exit_code: code }).await;
                    }
                    Err(error) => {
                        // The survey that follows shows whether it is back.
                        if self.shared.outage.error().is_none() {
                            self.shared.outage.begin(error.message);
                        }
                        break;
                    }
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Reports which runners the provider has.
    pub(crate) async fn survey(self) {
        let taken_at = clock::now().instant;
        if let Ok(containers) = self.list().await {
            self.send(Event::Survey { containers, taken_at }).await;
        }
    }

    async fn list(&self) -> Result<Vec<Adopted>, provider::Error> {
        let listed = self.shared.provider.list().await;
        match &listed {
            Ok(_) => self.shared.outage.end(),
            Err(error) => self.shared.outage.begin(error.message.clone()),
        }
        let mut ignored = Vec::new();
        let adopted = listed?.into_iter().filter_map(|instance| {
            let (runner, container) = (instance.labels.runner.clone(), instance.id.clone());
            self.adopted(instance).or_else(|| {
                ignored.push((container, runner));
                None
            })
        });
        let adopted = adopted.collect();
        for (container, runner) in self.shared.ignored.replace(ignored) {
            error!(container, runner, "it has our label but no target: ignored");
        }
        Ok(adopted)
    }

    /// Why the provider does not answer; `None` while it does.
    pub(crate) fn provider_error(&self) -> Option<String> {
        self.shared.outage.error()
    }

    /// `None` if it has no label with a target.
    fn adopted(&self, instance: Instance) -> Option<Adopted> {
        let Labels { runner, pool, host, target, launched_unix_ms, .. } = instance.labels;
        let container = match instance.state {
            InstanceState::Running => AdoptedContainer::Running,
            InstanceState::Exited { code } => AdoptedContainer::Exited(code),
            InstanceState::Created => AdoptedContainer::Created,
            InstanceState::Removing => AdoptedContainer::Missing,
        };
        let target = target.parse().ok()?;
        Some(Adopted {
            runner,
            pool,
            target: self.shared.clients.on_server(target, Host::new(&host)),
            registration_id: None,
            job: None,
            created_at: launched_unix_ms,
            container,
        })
    }
}
