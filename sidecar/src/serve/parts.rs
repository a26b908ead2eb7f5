//! The parts of `serve`: how they are joined, started and stopped.

use std::{
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use edgerunner_proto::BUILD;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::{Api, authorization::Authorization},
    config::{Config, PoolConfig},
    control::{
        command::{self, EventSender},
        driver::Driver,
        executor::{Executor, LaunchConfig},
        reload::Reload,
        restore::restore,
        supervisor::Supervisor,
    },
    github::clients::Clients,
    intake::{
        grpc::Submissions,
        listen::{Listener, bind_tcp},
        server,
        webhook_secrets::WebhookSecrets,
    },
    missed, page,
    provider::{Provider, docker::Docker, swarm::Swarm},
    store::Store,
    telemetry::{metrics, traces},
};
use edgerunner_scheduler::plan::Pool;

/// For gRPC calls in progress: one takes a commit at most.
const INTAKE_GRACE: Duration = Duration::from_secs(5);
/// Added to the driver's own grace period.
const DRIVER_MARGIN: Duration = Duration::from_secs(5);

/// Batches of deliveries that may wait until the search for missed webhooks notes their sources.
const ARRIVALS_MAX: usize = 1_024;

const GRPC: &str = "gRPC";
const DRIVER: &str = "the driver";

/// Everything that runs.
pub(super) struct Parts {
    pub(super) supervisor: Supervisor,
    /// Stops the intake.
    closing: CancellationToken,
    /// Stops everything else.
    shutdown: CancellationToken,
    stopping: Arc<AtomicBool>,
    driver_limit: Duration,
}

impl Parts {
    pub(super) async fn start(
        config: Config,
        file: Option<PathBuf>,
        store: Store,
        prometheus: PrometheusHandle,
    ) -> Result<Self> {
        let server = &config.server;
        let tls = server.grpc_tls();
        let grpc =
            Listener::bind("server.grpc_address", &server.grpc_address, tls.as_ref()).await?;
        let http = bind_tcp("server.http_address", server.http_address).await?;
        let clients = Arc::new(Clients::new(&config.credentials, config.github.timeout())?);
        let instance = config.scheduler.instance.clone();
        let docker = Provider::Docker(Docker::connect(&config.engine, &instance));
        let swarm = config.swarm.as_ref().map(|swarm| {
            let swarm = Swarm::connect(swarm, &instance, &config.registries);
            swarm.attend_abandoned();
            Provider::Swarm(swarm)
        });
        let names = config.providers().into_iter().map(str::to_owned);
        let providers = names.zip([docker].into_iter().chain(swarm)).collect();

        let (settings, default_host) = (config.planner_settings(), config.default_host());
        let (current_pools, pools) = watch::channel::<Arc<[Pool]>>(settings.pools.clone().into());
        let (commands, receiver) = command::channel();
        let events = EventSender::new(commands.clone());
        let timetables = PoolConfig::timetables(&config.pools);
        let traces = Arc::new(traces::DeliveryTraces::new());
        let executor = Executor::new(
            LaunchConfig { instance, pools: config.pools, registries: config.registries },
            Arc::clone(&clients),
            providers,
            store.clone(),
            Arc::clone(&traces),
            events.clone(),
        );
        // Before the ports answer, so that no event is planned twice.
        let (state, runners) = restore(&store, settings).await?;

        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let grace = Duration::from_secs(config.scheduler.shutdown_grace_seconds.into());
        let driver = Driver::new(
            state,
            store.clone(),
            executor.clone(),
            timetables,
            current_pools,
            receiver,
        );
        let driver = driver.run(shutdown.child_token(), grace);
        supervisor.spawn(DRIVER, async move {
            driver.await;
            Ok(())
        });
        for recovery in executor.recover_and_watch(runners) {
            supervisor.spawn_endless("runner recovery", recovery);
        }
        let pulls = executor.clone().pull_images();
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(pulls));
        let mut arrivals = None;
        if config.missed_webhooks.enabled {
            let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
            let (store, events, pools) = (store.clone(), events.clone(), pools.clone());
            let context = missed::Context { clients, store, events, pools };
            let (settings, credentials) = (&config.missed_webhooks, &config.credentials);
            for (name, task) in missed::start(settings, credentials, context, receiver).await? {
                supervisor.spawn_endless(name, task);
            }
            arrivals = Some(sender);
        }
        let reload =
            Reload { file, restart_required: config.restart_required, commands: commands.clone() };
        supervisor.spawn_endless("reload", reload.on_hangup()?);

        let searched = store.searched();
        supervisor.spawn("store check", async move {
            searched.await?;
            pending().await
        });
        supervisor.spawn_endless("metrics", metrics::keep_up(prometheus.clone()));

        let closing = CancellationToken::new();
        let submissions = Submissions {
            store: store.clone(),
            events,
            pools,
            webhooks: Arc::new(WebhookSecrets::new(&config.webhooks)),
            default_host,
            arrivals,
            traces,
            closing: closing.clone(),
        };
        supervisor.spawn(GRPC, server::serve(grpc, submissions, closing.clone()));
        let stopping = Arc::new(AtomicBool::new(false));
        let page = page::router(store.clone(), commands.clone());
        let api = Api::new(
            store,
            executor,
            commands,
            Authorization::new(config.server.api_token),
            config.server.http_address,
            Arc::clone(&stopping),
            prometheus,
        );
        supervisor.spawn("HTTP", api.serve(page, http, shutdown.clone()));
        info!(
            grpc = %config.server.grpc_address,
            http = %config.server.http_address,
            version = env!("CARGO_PKG_VERSION"),
            build = BUILD,
            "serving"
        );
        Ok(Self { supervisor, closing, shutdown, stopping, driver_limit: grace + DRIVER_MARGIN })
    }

    /// The intake first, then the driver: what was accepted is in the store.
    pub(super) async fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.closing.cancel();
        // A client that watches the health service never hangs up: it is cut off.
        self.supervisor.finish(GRPC, INTAKE_GRACE).await;
        self.shutdown.cancel();
        self.supervisor.finish(DRIVER, self.driver_limit).await;
        // A browser that keeps its connection open must not keep the process.
        self.supervisor.abort();
    }
}

#[cfg(test)]
mod tests;
