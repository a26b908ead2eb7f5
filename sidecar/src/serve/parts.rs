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

use anyhow::{Context as _, Error, Result};
use edgerunner_proto::BUILD;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    cluster::{self, Position, Sidecar},
    planner::{DRIVER, Inputs, Planner},
};
use crate::{
    api::Api,
    config::Config,
    control::{
        command, executor::Places, leadership::Leadership, notices, reload::Reload,
        sidecars::Sidecars, supervisor::Supervisor,
    },
    github::clients::Clients,
    intake::{grpc::Submissions, server, webhook_secrets::WebhookSecrets},
    listen::{ClosedListener, Listener, bind_tcp},
    notifications::{self, Notifier},
    page,
    provider::{Provider, docker::Docker, kubernetes::Kubernetes, swarm::Swarm},
    store::{Cluster, Store},
    telemetry::{metrics, traces},
};

/// For gRPC calls in progress: one takes a commit at most.
const INTAKE_GRACE: Duration = Duration::from_secs(5);

const GRPC: &str = "gRPC";

/// Everything that runs.
pub(super) struct Parts {
    pub(super) supervisor: Supervisor,
    /// Stops the intake.
    closing: CancellationToken,
    /// Stops everything else.
    shutdown: CancellationToken,
    stopping: Arc<AtomicBool>,
    /// How long the driver may take to stop.
    stop_limit: Duration,
    /// The sidecars that share the store.
    cluster: Option<Cluster>,
    #[cfg(test)]
    commands: command::CommandSender,
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
        let sign_in = match &server.sign_in_address {
            Some(address) => {
                let tls = server.sign_in_tls();
                let field = "server.sign_in_address";
                Some(ClosedListener::bind(field, address, tls.as_ref()).await?)
            }
            None => None,
        };
        let clients = Arc::new(Clients::new(&config.credentials, config.github.timeout())?);
        let instance = &config.scheduler.instance;
        let docker = Provider::Docker(Docker::connect(&config.engine, instance));
        let swarm = config
            .swarm
            .as_ref()
            .map(|swarm| Provider::Swarm(Swarm::connect(swarm, instance, &config.registries)));
        let kubernetes = config
            .kubernetes
            .as_ref()
            .map(|cluster| Provider::Kubernetes(Kubernetes::connect(cluster, instance)));
        let names = config.providers().into_iter().map(|it| it.as_str().to_owned());
        let providers = [docker].into_iter().chain(swarm).chain(kubernetes);
        let places = Places::new(names.zip(providers).collect());
        let traces = Arc::new(traces::DeliveryTraces::new());
        let (notifier, messages) = match config.notifications.clone() {
            Some(receiver) => {
                let opened = notifications::open(receiver, instance);
                let (notifier, messages) = opened.map_err(Error::msg).context("notifications")?;
                (notifier, Some(messages))
            }
            None => (Notifier::off(), None),
        };
        let planner = Planner::new(&config, clients, places.clone(), store.clone(), traces.clone());
        let planner = planner.notifying(notifier.clone());
        let (pools, stop_limit) = (planner.current_pools(), planner.stop_limit());
        let (commands, receiver) = command::channel();
        let default_host = config.default_host();

        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let cluster = store.cluster().cloned();
        let sidecars = Sidecars::new(cluster.clone(), config.fingerprints);
        if let Some(messages) = messages {
            supervisor.spawn_endless("notifications", messages.run());
        }
        let inputs = match &cluster {
            // Before the ports answer, so that no event is planned twice.
            None => {
                let channel = (commands.clone(), receiver);
                let leadership = Leadership::permanent();
                Some(planner.start(&leadership, &mut supervisor, &shutdown, channel).await?)
            }
            Some(cluster) => {
                let (cluster, position) = (cluster.clone(), Position::default());
                let (stored, all) = (store.clone(), sidecars.clone());
                let reports = cluster::report(cluster.clone(), stored, position.clone(), all);
                supervisor.spawn_endless("reports", reports);
                if notifier.is_on() {
                    let own_id = cluster.id().to_owned();
                    let watch = notices::watch_for_planner(sidecars.clone(), own_id, notifier);
                    supervisor.spawn_endless("planner watch", watch);
                }
                let commands = receiver;
                let (sidecars, shutdown) = (sidecars.clone(), shutdown.clone());
                let sidecar = Sidecar { cluster, planner, commands, position, sidecars, shutdown };
                supervisor.spawn(DRIVER, sidecar.run());
                None
            }
        };
        let (events, arrivals) = match inputs {
            Some(Inputs { events, arrivals }) => (Some(events), arrivals),
            None => (None, None),
        };
        let reload = Reload {
            file,
            restart_required: config.restart_required,
            commands: commands.clone(),
            cluster: cluster.clone(),
            sidecars: sidecars.clone(),
        };
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
        let page = page::router(store.clone(), commands.clone(), sidecars.clone());
        let api = Api::new(
            store,
            places,
            commands.clone(),
            &config.server,
            Arc::clone(&stopping),
            prometheus,
            sidecars,
        );
        if let Some(listener) = sign_in {
            let signed_in = api.clone().serve_signed_in(page.clone(), listener, shutdown.clone());
            supervisor.spawn("sign-in", signed_in);
        }
        supervisor.spawn("HTTP", api.serve(page, http, shutdown.clone()));
        info!(
            grpc = %config.server.grpc_address,
            http = %config.server.http_address,
            version = env!("CARGO_PKG_VERSION"),
            build = BUILD,
            "serving"
        );
        Ok(Self {
            supervisor,
            closing,
            shutdown,
            stopping,
            stop_limit,
            cluster,
            #[cfg(test)]
            commands,
        })
    }

    /// The intake first, then the driver: what was accepted is in the store.
    pub(super) async fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.closing.cancel();
        // A client that watches the health service never hangs up: it is cut off.
        self.supervisor.finish(GRPC, INTAKE_GRACE).await;
        self.shutdown.cancel();
        self.supervisor.finish(DRIVER, self.stop_limit).await;
        // A browser that keeps its connection open must not keep the process.
        self.supervisor.abort();
        if let Some(cluster) = self.cluster
            && let Err(error) = cluster.leave().await
        {
            warn!(%error, "this sidecar is listed for an hour, although it has ended");
        }
    }
}

#[cfg(test)]
mod tests;
