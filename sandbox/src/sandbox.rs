//! The handle: starts the sandbox, lets tests look and act, stops it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::calls::Call;
use crate::delivery::Delivery;
use crate::faults::{ActiveFaults, Faults};
use crate::job::{Job, JobRequest};
use crate::jobs::JobError;
use crate::payload::Urls;
use crate::registration::Runner;
use crate::rest::{self, CloseConnection};
use crate::scope::RepositoryName;
use crate::settings::Settings;
use crate::state::State;
use crate::{control, sessions};

/// How long open requests may take to end when the sandbox stops.
const GRACE: Duration = Duration::from_secs(2);

/// A running sandbox. It stops when this is dropped.
pub struct Sandbox {
    app: Arc<App>,
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("what was waited for did not come about within {0:?}")]
pub struct WaitedInVain(Duration);

impl Sandbox {
    pub fn start(listener: TcpListener, settings: Settings) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let origin =
            settings.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let state = State::new(settings, Urls::new(&origin));
        let app = App::new(state, CancellationToken::new());
        let router = Router::new()
            .nest("/_sandbox/runner", sessions::router())
            .nest("/_sandbox", control::router())
            // Nesting leaves the one with the slash out.
            .route("/_sandbox/", get(control::help))
            .merge(rest::router(&app))
            .with_state(Arc::clone(&app));
        app.tasks.spawn(serve(listener, router, app.stop.clone()));
        app.tasks.spawn(sessions::watch(Arc::clone(&app)));
        Ok(Self { app, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of the API, as for `github.api_url`.
    pub fn url(&self) -> String {
        self.app.read(|state| state.urls.origin().to_owned())
    }

    /// From now on webhooks go there.
    pub fn set_webhook_url(&self, url: impl Into<String>) {
        let url = url.into();
        self.app.update(|state| state.settings.webhook_url = Some(url));
    }

    /// The id of the first job queued.
    pub fn queue_job(&self, request: &JobRequest) -> u64 {
        self.queue_jobs(request).first().copied().unwrap_or_default()
    }

    pub fn queue_jobs(&self, request: &JobRequest) -> Vec<u64> {
        self.app.update(|state| state.queue(request))
    }

    pub fn cancel_job(&self, id: u64) -> Result<(), JobError> {
        self.app.update(|state| state.cancel(id))
    }

    /// The id of the new job.
    pub fn rerun_job(&self, id: u64) -> Result<u64, JobError> {
        self.app.update(|state| state.rerun(id))
    }

    pub fn ping(&self, repository: &RepositoryName) -> Result<(), serde_json::Error> {
        self.app.update(|state| state.ping(repository))
    }

    pub fn job(&self, id: u64) -> Option<Job> {
        self.app.read(|state| state.jobs.get(&id).cloned())
    }

    /// Oldest first.
    pub fn jobs(&self) -> Vec<Job> {
        self.app.read(|state| state.jobs.values().cloned().collect())
    }

    pub fn runners(&self) -> Vec<Runner> {
        self.app.read(|state| state.runners.values().cloned().collect())
    }

    /// In the order in which they ended.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.app.read(|state| state.deliveries.clone())
    }

    /// Sends it once more, as its sender was asked to; that is a delivery of
    /// its own.
    pub fn redeliver(&self, delivery: &Delivery) {
        self.app.update(|state| state.redeliver(delivery.source.clone()));
    }

    /// Every REST request seen.
    pub fn calls(&self) -> Vec<Call> {
        self.app.read(|state| state.calls.clone())
    }

    pub fn faults(&self) -> Faults {
        self.app.read(|state| state.faults.get().clone())
    }

    /// In place of those set before.
    pub fn set_faults(&self, faults: Faults) {
        self.app.update(|state| state.faults = ActiveFaults::new(faults));
    }

    /// Installation tokens issued so far are refused from now on.
    pub fn expire_installation_tokens(&self) {
        self.app.update(|state| state.installation_tokens.clear());
    }

    /// Looks again whenever something changes, until there is a value.
    pub async fn wait_for<T>(
        &self,
        within: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, WaitedInVain> {
        let mut changes = self.app.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(value) = look(self) {
                    return Some(value);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(within, wait).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) | Err(_) => Err(WaitedInVain(within)),
        }
    }

    pub async fn shutdown(self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.app.stop.cancel();
    }
}

/// A wildcard address is no address to send runners to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// `axum::serve` always answers; here a connection may also be closed without
/// an answer.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let graceful = GracefulShutdown::new();
    let builder = auto::Builder::new(TokioExecutor::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                continue;
            }
        };
        let router = router.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let answer = router.call(request);
            async move {
                let Ok(response) = answer.await;
                match response.extensions().get::<CloseConnection>() {
                    Some(_) => Err(ClosedOnPurpose),
                    None => Ok(response),
                }
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let stop = stop.clone();
        tokio::spawn(async move {
            let until_end_of_grace = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
                () = until_end_of_grace => {}
            }
        });
    }
    graceful.shutdown().await;
}

#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct ClosedOnPurpose;
