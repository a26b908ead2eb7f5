//! Finds out which runners exist: at the start, periodically, and by their exits.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tracing::error;

use super::{
    Executor, RETRY_AFTER,
    places::{Place, Places},
};
use crate::{
    control::clock,
    provider::{self, Exit, Instance, InstanceState, Labels, ParkedContainer},
    store::RunnerRecord,
};
use edgerunner_scheduler::{
    model::Host,
    plan::{Adopted, AdoptedContainer, Event, Parameters, Parked},
};

impl Executor {
    /// For each provider, adopts the runners of an earlier process, then watches for exits. None of
    /// them waits for another. `records` are those that the store has.
    pub(crate) fn recover_and_watch(
        &self,
        records: Vec<RunnerRecord>,
    ) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let mut lost = 0;
        let mut of_place: Vec<Vec<RunnerRecord>> =
            self.shared.places.iter().map(|_| Vec::new()).collect();
        for record in records {
            let is_configured = self.shared.places.iter().any(|it| it.name == record.provider);
            lost += usize::from(!is_configured && !record.provider.is_empty());
            self.shared.node_names.set(&record.name, record.node.clone());
            of_place[self.shared.places.named(&record.provider)].push(record);
        }
        if lost > 0 {
            error!(
                runners = lost,
                "their provider is no longer configured: what is left of them there is not removed"
            );
        }
        let works = of_place.into_iter().enumerate().map(|(place, records)| {
            let executor = self.clone();
            async move {
                executor.recover(place, records).await;
                executor.watch(place).await;
            }
        });
        works.collect()
    }

    /// Adopts the runners of an earlier process: those in the store, and those that only the
    /// provider knows. Retries until the provider answers.
    pub(super) async fn recover(&self, place: usize, records: Vec<RunnerRecord>) {
        let listed = loop {
            match self.list(place).await {
                Ok(listed) => break listed,
                Err(_) => sleep(RETRY_AFTER).await,
            }
        };
        let mut instances: HashMap<String, Adopted> =
            listed.into_iter().map(|instance| (instance.runner.clone(), instance)).collect();
        for record in records {
            let instance = instances.remove(&record.name);
            let (container, parameters, devices, parked) = match instance {
                Some(Adopted { container, parameters, devices, parked, .. }) => {
                    (container, parameters, devices, parked)
                }
                None => (AdoptedContainer::Missing, Parameters::default(), Vec::new(), None),
            };
            // That it is to be woken is on record before it is woken.
            let parked =
                parked.map(|parked| Parked { woken: record.started_at.is_some(), ..parked });
            let Ok(target) = record.target.parse() else {
                error!(runner = record.name, target = record.target, "unreadable target in store");
                continue;
            };
            let adopted = Adopted {
                runner: record.name,
                pool: record.pool,
                provider: place,
                target: self.shared.clients.on_server(target, record.host),
                registration_id: record.registration_id,
                job: record.job,
                created_at: record.created_at,
                container,
                parameters,
                devices,
                parked,
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
        // Before anything is launched.
        self.report_machine(place).await;
        self.send(Event::Recovered { provider: place }).await;
    }

    /// Reports exits for as long as the process lives. Begins once everything is adopted: an
    /// exit before that would belong to no runner.
    async fn watch(&self, place: usize) {
        let Place { name, provider, outage, .. } = &self.shared.places[place];
        loop {
            let mut exits = provider.exits();
            // Exits that happened while nobody watched.
            self.clone().survey(place).await;
            while let Some(exit) = exits.next().await {
                match exit {
                    Ok(Exit { runner, status }) => {
                        self.send(Event::ContainerExited { runner, status }).await;
                    }
                    Err(error) => {
                        // The survey that follows shows whether it is back.
                        if outage.error().is_none() {
                            outage.begin(name, error.message, self.is_used(place));
                        }
                        break;
                    }
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Reports which runners a provider has.
    pub(crate) async fn survey(self, place: usize) {
        let taken_at = clock::now().instant;
        if let Ok(containers) = self.list(place).await {
            self.send(Event::Survey { provider: place, containers, taken_at }).await;
        }
    }

    pub(crate) fn places(&self) -> &Places {
        &self.shared.places
    }

    async fn list(&self, place: usize) -> Result<Vec<Adopted>, provider::Error> {
        let Place { name, provider, outage, .. } = &self.shared.places[place];
        let listed = provider.list().await;
        match &listed {
            Ok(_) => outage.end(name),
            Err(error) => outage.begin(name, error.message.clone(), self.is_used(place)),
        }
        let mut ignored = Vec::new();
        let adopted = listed?.into_iter().filter_map(|instance| {
            let (runner, container) = (instance.labels.runner.clone(), instance.id.clone());
            self.shared.node_names.set(&runner, instance.node.clone());
            self.adopted(place, instance).or_else(|| {
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

    /// Why the providers that do not answer do not; `None` while all do that a pool uses.
    pub(crate) fn provider_error(&self) -> Option<String> {
        let places = self.shared.places.iter().enumerate();
        let places = places.filter(|(index, _)| self.is_used(*index));
        let errors = places.filter_map(|(_, place)| place.outage.error());
        let errors: Vec<String> = errors.collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    /// Whether a pool's runners run there.
    pub(super) fn is_used(&self, place: usize) -> bool {
        self.pools().iter().any(|pool| pool.place == place)
    }

    /// `None` if it has no label with a target.
    fn adopted(&self, place: usize, instance: Instance) -> Option<Adopted> {
        let Labels {
            runner,
            pool,
            host,
            target,
            launched_unix_ms,
            devices,
            parameters,
            parked,
            ..
        } = instance.labels;
        let container = match instance.state {
            InstanceState::Running => AdoptedContainer::Running,
            InstanceState::Exited(status) => AdoptedContainer::Exited(status),
            InstanceState::Created => AdoptedContainer::Created,
            InstanceState::Removing => AdoptedContainer::Missing,
            InstanceState::Unreachable => AdoptedContainer::Unreachable,
        };
        let target = target.parse().ok()?;
        Some(Adopted {
            runner,
            pool,
            provider: place,
            target: self.shared.clients.on_server(target, Host::new(&host)),
            registration_id: None,
            job: None,
            created_at: launched_unix_ms,
            container,
            // If they are damaged, it is listed all the same, to be removed.
            parameters: parameters.parse().unwrap_or_default(),
            devices,
            parked: parked.map(|parked| Parked {
                started: parked.container == ParkedContainer::Waiting,
                revision: parked.revision,
                woken: false,
            }),
        })
    }
}
