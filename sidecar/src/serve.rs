//! `edgerunner serve`: puts the parts together.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use edgerunner_proto::{BUILD, FILE_DESCRIPTOR_SET, v1::intake_server::IntakeServer};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::interceptor::InterceptedService, transport::Server};
use tracing::{error, info};

use crate::{
    api::Api,
    api::authorization::Authorization,
    config::{Config, PoolConfig},
    control::clock,
    control::driver::{Driver, WAITING_COMMANDS_MAX},
    control::executor::Executor,
    control::reload::Reload,
    github::clients::Clients,
    intake,
    intake::grpc::{self, Submissions},
    intake::listen::{Listener, bind_tcp},
    missed, page,
    provider::docker::Docker,
    store::{self, Store},
    telemetry::logging,
    telemetry::metrics,
    telemetry::traces,
};
use edgerunner_scheduler::plan::{self, Event, Pool, State};

/// An event and what goes with it.
const MESSAGE_BYTES_MAX: usize = edgerunner_proto::EVENT_BYTES_MAX + 64 * 1024;
/// A `Submit` under way takes a commit at most.
const INTAKE_GRACE: Duration = Duration::from_secs(5);
/// Reads of the store run on threads, which cannot be cut short.
const READS_END: Duration = Duration::from_secs(1);

/// `file`: what the configuration was read from, to read it anew.
pub(crate) fn serve(config: Config, file: Option<PathBuf>) -> Result<()> {
    // One thread: all that runs on it waits most of the time, and to wake a second one
    // costs a delivery more than it gains. What blocks has threads of its own.
    let start = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("the runtime did not start")
    };
    let everything = start()?;
    let traces = {
        let _on_it = everything.enter();
        config.traces.otlp_endpoint.as_deref().map(traces::Exporter::start).transpose()?
    };
    logging::init(&config.log, traces.as_ref());
    let store_closed = everything.block_on(run(config, file))?;
    if let Some(traces) = traces {
        let ended = everything.spawn_blocking(|| traces.end());
        log_end("traces", everything.block_on(ended));
    }
    // Launches that outlast the grace period end here, and let go of the store.
    everything.shutdown_timeout(READS_END);
    start()?.block_on(store_closed.wait());
    info!("stopped");
    Ok(())
}

/// Returns once it was told to end and has; the store closes when its last user is gone.
async fn run(config: Config, file: Option<PathBuf>) -> Result<store::Closed> {
    let prometheus = metrics::install()?;
    let (store, store_closed) = Store::open(&config.store.path, metrics::commit)?;
    let server = &config.server;
    let tls = server.grpc_tls();
    let grpc = Listener::bind("server.grpc_address", &server.grpc_address, tls.as_ref()).await?;
    let http = bind_tcp("server.http_address", server.http_address).await?;
    let access = Arc::new(Clients::new(&config.credentials, config.github.timeout())?);
    let docker = Docker::connect(config.docker.host.as_deref(), &config.registries)?;

    let settings = config.planner_settings();
    let (pools_now, pools) = watch::channel::<Arc<[Pool]>>(settings.pools.clone().into());
    let (inputs, receiver) = mpsc::channel(WAITING_COMMANDS_MAX);
    let timetables = PoolConfig::timetables(&config.pools);
    let traces = Arc::new(traces::Deliveries::new());
    let executor = Executor::new(
        config.scheduler.instance.clone(),
        config.pools,
        Arc::clone(&access),
        docker,
        store.clone(),
        Arc::clone(&traces),
        inputs.clone(),
    );

    // Everything is read before the port answers, so that nothing is told twice.
    let open_jobs = store.open_jobs().await?;
    let runners = store.present_runners().await?;
    let mut state = State::new(settings, clock::now());
    info!(jobs = open_jobs.len(), runners = runners.len(), store = store.location(), "found");
    for name in store.draining().await? {
        drain(&mut state, name.as_deref());
    }
    for record in open_jobs {
        // Nothing is launched before the driver has seen what runs already.
        let actions = plan::plan(
            &mut state,
            intake::event(record.state, record.job, record.runner_name),
            clock::now(),
        );
        debug_assert!(actions.is_empty());
    }

    let shutdown = CancellationToken::new();
    let stopping = Arc::new(AtomicBool::new(false));
    let driver =
        Driver::new(state, store.clone(), executor.clone(), timetables, pools_now, receiver);
    let grace = Duration::from_secs(config.scheduler.shutdown_grace_seconds.into());
    let driver = tokio::spawn(driver.run(shutdown.child_token(), grace));
    let pulls = executor.clone().pull_images();
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(pulls));
    let log_reader = executor.clone();
    let recovery = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let recover_and_watch = async {
                executor.recover(runners).await;
                executor.watch().await;
            };
            shutdown.run_until_cancelled(recover_and_watch).await
        }
    });

    let (sources, watchers) = match config.missed_webhooks.enabled {
        true => {
            let (store, driver) = (store.clone(), inputs.clone());
            let context = missed::Context { access, store, driver, pools: pools.clone() };
            let started = missed::start(&config.missed_webhooks, &config.credentials, context);
            let (sources, watchers) = started.await?;
            (Some(Arc::new(sources)), watchers)
        }
        false => (None, Vec::new()),
    };
    for watcher in watchers {
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(watcher));
    }

    let reload = Reload { file, fixed: config.fixed, driver: inputs.clone() };
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(reload.on_hangup()?));
    if let Some(sources) = sources.clone() {
        let following = sources.follow_pools();
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(following));
    }

    let intake = CancellationToken::new();
    let mut grpc = tokio::spawn(serve_grpc(
        grpc,
        Submissions::new(
            store.clone(),
            inputs.clone(),
            pools.clone(),
            config.webhooks.into(),
            sources,
            traces,
            intake.clone(),
        ),
        intake.clone(),
    ));
    let page = page::router(store.clone(), inputs.clone());
    let api = Api::new(
        store.clone(),
        log_reader,
        inputs,
        Authorization::new(config.server.api_token),
        config.server.http_address,
        Arc::clone(&stopping),
        prometheus,
    );
    let http = tokio::spawn(
        axum::serve(http, api.router(page))
            .with_graceful_shutdown(shutdown.clone().cancelled_owned())
            .into_future(),
    );
    info!(
        grpc = %config.server.grpc_address,
        http = %config.server.http_address,
        version = env!("CARGO_PKG_VERSION"),
        build = BUILD,
        "serving"
    );

    terminated().await?;
    // First the door, then the loop behind it: what was answered is in the store.
    stopping.store(true, Ordering::Relaxed);
    intake.cancel();
    match timeout(INTAKE_GRACE, &mut grpc).await {
        Ok(end) => log_end("gRPC", end),
        // A client that watches our health, say, never hangs up.
        Err(_) => grpc.abort(),
    }
    shutdown.cancel();
    log_end("driver", driver.await);
    log_end("recovery", recovery.await);
    // A browser that keeps its connection open must not keep the process.
    http.abort();
    Ok(store_closed)
}

/// As an earlier process was told: a restart must not undo it.
fn drain(state: &mut State, name: Option<&str>) {
    let pools = &state.settings().pools;
    let pool = name.map(|name| pools.iter().position(|pool| pool.name == name));
    match pool {
        Some(None) => info!(pool = name, "drains, but is no longer configured"),
        None | Some(Some(_)) => {
            info!(pool = name, "still drains: nothing is launched until it is resumed");
            let event = Event::Drain { pool: pool.flatten(), draining: true };
            plan::plan(state, event, clock::now());
        }
    }
}

async fn serve_grpc(
    listener: Listener,
    submissions: Submissions,
    intake: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IntakeServer<Submissions>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let reflection = match reflection {
        Ok(reflection) => Some(reflection),
        Err(error) => {
            error!(%error, "no reflection");
            None
        }
    };
    let intake_service =
        IntakeServer::new(submissions).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let router = Server::builder()
        .add_service(health_service)
        .add_optional_service(reflection)
        .add_service(InterceptedService::new(intake_service, grpc::understood));
    let closing = async move {
        intake.cancelled().await;
        // Envoy's health check sends what comes now elsewhere, or answers 503.
        health.set_not_serving::<IntakeServer<Submissions>>().await;
    };
    match listener {
        Listener::Tcp(connections) => {
            router.serve_with_incoming_shutdown(connections, closing).await
        }
        Listener::Tls(connections) => {
            router.serve_with_incoming_shutdown(connections, closing).await
        }
        Listener::Unix(connections) => {
            router.serve_with_incoming_shutdown(connections, closing).await
        }
    }
}

async fn terminated() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no SIGTERM handler")?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        done = tokio::signal::ctrl_c() => done.context("no SIGINT handler")?,
    }
    Ok(())
}

fn log_end<T, E: std::fmt::Display>(what: &str, end: Result<T, E>) {
    if let Err(error) = end {
        error!(%error, "{what} ended badly");
    }
}
