//! The parts of `serve` that plan and act. They run for as long as this sidecar has the right to.

use std::{future::pending, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, CredentialConfig, MissedWebhooks, PoolConfig, Registry, Reserves},
    control::{
        command::{Command, CommandSender, EventSender},
        driver::Driver,
        executor::{Executor, LaunchConfig, Places},
        leadership::Leadership,
        notices,
        restore::restore,
        supervisor::Supervisor,
    },
    github::clients::Clients,
    missed,
    notifications::Notifier,
    provider::Provider,
    store::{Delivery, Store},
    telemetry::traces::DeliveryTraces,
};
use edgerunner_scheduler::plan::{Pool, Settings};

pub(super) const DRIVER: &str = "the driver";
/// Added to the driver's own grace period.
const DRIVER_MARGIN: Duration = Duration::from_secs(5);
/// Batches of deliveries that may wait until the search for missed webhooks notes their sources.
const ARRIVALS_MAX: usize = 1_024;

/// Everything that planning needs.
pub(super) struct Planner {
    settings: Settings,
    pools: Vec<PoolConfig>,
    registries: Vec<Registry>,
    reserves: Reserves,
    credentials: Vec<CredentialConfig>,
    missed_webhooks: MissedWebhooks,
    /// Where GitHub sends webhooks, if it is configured.
    webhook_url: Option<String>,
    grace: Duration,
    clients: Arc<Clients>,
    places: Places,
    store: Store,
    traces: Arc<DeliveryTraces>,
    /// Publishes the current pools.
    current_pools: watch::Sender<Arc<[Pool]>>,
    notifier: Notifier,
    rerun_lost: bool,
}

/// Where the deliveries of a planner go that was started.
pub(super) struct Inputs {
    pub(super) events: EventSender,
    /// To the recovery of missed webhooks, if it is enabled.
    pub(super) arrivals: Option<mpsc::Sender<Arc<[Delivery]>>>,
}

impl Planner {
    pub(super) fn new(
        config: &Config,
        clients: Arc<Clients>,
        places: Places,
        store: Store,
        traces: Arc<DeliveryTraces>,
    ) -> Self {
        let settings = config.planner_settings();
        let (current_pools, _) = watch::channel(settings.pools.clone().into());
        Self {
            settings,
            pools: config.pools.clone(),
            registries: config.registries.clone(),
            reserves: config.reserves,
            credentials: config.credentials.clone(),
            missed_webhooks: config.missed_webhooks.clone(),
            webhook_url: config.github.webhook_url.clone(),
            grace: Duration::from_secs(config.scheduler.shutdown_grace_seconds.into()),
            clients,
            places,
            store,
            traces,
            current_pools,
            notifier: Notifier::off(),
            rerun_lost: config.scheduler.rerun_lost,
        }
    }

    /// Sends messages about what someone should look at.
    pub(super) fn notifying(self, notifier: Notifier) -> Self {
        Self { notifier, ..self }
    }

    /// The current pools, whether or not this sidecar plans.
    pub(super) fn current_pools(&self) -> watch::Receiver<Arc<[Pool]>> {
        self.current_pools.subscribe()
    }

    /// From the next start.
    pub(super) fn set_pools(&mut self, pools: Vec<PoolConfig>) {
        self.settings.pools = pools.iter().map(PoolConfig::planner_pool).collect();
        self.current_pools.send_replace(self.settings.pools.clone().into());
        self.pools = pools;
    }

    /// How long a planner takes at most to stop.
    pub(super) fn stop_limit(&self) -> Duration {
        self.grace + DRIVER_MARGIN
    }

    /// The state of the store is restored when this returns. The parts end with `shutdown`, the
    /// driver after its grace period, or with the leadership.
    pub(super) async fn start(
        &self,
        leadership: &Leadership,
        supervisor: &mut Supervisor,
        shutdown: &CancellationToken,
        (commands, receiver): (CommandSender, mpsc::Receiver<Command>),
    ) -> Result<Inputs> {
        let store = match leadership.term() {
            Some(term) => self.store.fenced(term),
            None => self.store.clone(),
        };
        let events = EventSender::new(commands.clone());
        let executor = Executor::new(
            LaunchConfig {
                instance: self.settings.instance.clone(),
                pools: self.pools.clone(),
                registries: self.registries.clone(),
                reserves: self.reserves,
            },
            Arc::clone(&self.clients),
            self.places.clone(),
            store.clone(),
            Arc::clone(&self.traces),
            events.clone(),
        );
        let term = leadership.term().map(|term| term.0.cast_unsigned());
        let settings = Settings { term, ..self.settings.clone() };
        let (state, runners) = restore(&store, settings).await?;
        let driver = Driver::new(
            state,
            store.clone(),
            executor.clone(),
            PoolConfig::timetables(&self.pools),
            self.current_pools.clone(),
            receiver,
            leadership.clone(),
        )
        .notifying(self.notifier.clone())
        .rerunning_lost(self.rerun_lost);
        let driver = leadership.run_while_held(driver.run(shutdown.child_token(), self.grace));
        let leader = leadership.clone();
        supervisor.spawn(DRIVER, async move {
            if driver.await.is_none() {
                // Without it, nothing else of the term may go on.
                leader.end();
                return pending().await;
            }
            Ok(())
        });
        for place in &*self.places {
            if let Provider::Swarm(swarm) = &place.provider {
                let attend = swarm.clone().attend_abandoned();
                supervisor.spawn_endless("launchers", leadership.run_endless(attend));
            }
        }
        for recovery in executor.recover_and_watch(runners) {
            supervisor.spawn_endless("runner recovery", leadership.run_endless(recovery));
        }
        if self.notifier.is_on() {
            let watch = notices::watch(commands, self.notifier.clone());
            supervisor.spawn_endless("notices", leadership.run_endless(watch));
        }
        let denials = leadership.run_endless(executor.clone().watch_denials());
        supervisor.spawn_endless("egress", denials);
        let pulls = leadership.run_endless(executor.pull_images());
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(pulls));
        let arrivals = match self.missed_webhooks.enabled {
            true => Some(self.look_for_missed(leadership, supervisor, store, &events).await?),
            false => None,
        };
        Ok(Inputs { events, arrivals })
    }

    async fn look_for_missed(
        &self,
        leadership: &Leadership,
        supervisor: &mut Supervisor,
        store: Store,
        events: &EventSender,
    ) -> Result<mpsc::Sender<Arc<[Delivery]>>> {
        let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
        let clients = Arc::clone(&self.clients);
        // With a term, the driver reads deliveries from the store.
        let events = leadership.term().is_none().then(|| events.clone());
        let (pools, webhook_url) = (self.current_pools(), self.webhook_url.clone());
        let context = missed::Context { clients, store, events, pools, webhook_url };
        let tasks = missed::start(&self.missed_webhooks, &self.credentials, context, receiver);
        for (name, task) in tasks.await? {
            supervisor.spawn_endless(name, leadership.run_endless(task));
        }
        Ok(sender)
    }
}
