//! The handle of a running sandbox: starts it, inspects and controls it, stops it.

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
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::call::Call;
use crate::delivery::DeliveryRecord;
use crate::faults::{ActiveFaults, Faults};
use crate::installation::InstallationStatus;
use crate::job::{Job, JobRequest, JobStatus};
use crate::payload::Urls;
use crate::registration::Runner;
use crate::repository::{Access, NameTaken, Visibility};
use crate::rest::{self, CloseConnection};
use crate::scope::RepositoryName;
use crate::settings::Settings;
use crate::state::State;
use crate::state::jobs::JobError;
use crate::state::registrations::RemoveError;
use crate::{app_manifest, control, job_page, runner_service};

/// How long open requests have to finish when the sandbox stops.
const GRACE: Duration = Duration::from_secs(2);

/// Completed jobs that are kept while [`Settings::job_every`] adds more.
const KEPT_MAX: usize = 500;
/// How long a job of [`Settings::job_every`] takes: long enough to be seen on a page.
const REGULAR_JOB_SECONDS: f64 = 5.0;

/// A running sandbox. It stops when this handle is dropped.
pub struct Sandbox {
    app: Arc<App>,
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("the condition was not met within {0:?}")]
pub struct Timeout(Duration);

impl Sandbox {
    pub fn start(listener: TcpListener, settings: Settings) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let origin =
            settings.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let web = settings.web_url.clone().unwrap_or_else(|| origin.clone());
        let job_every = settings.job_every;
        let state = State::new(settings, Urls::new(&origin, &web));
        let app = App::new(state, CancellationToken::new());
        let router = Router::new()
            .merge(runner_service::router())
            .merge(job_page::router())
            .merge(app_manifest::router())
            .nest("/_sandbox", control::router())
            // Nested routers do not match their own path with a slash.
            .route("/_sandbox/", get(control::help))
            .merge(rest::router(&app))
            .with_state(Arc::clone(&app));
        app.tasks.spawn(serve(listener, router, app.stop.clone()));
        app.tasks.spawn(runner_service::expire_sessions(Arc::clone(&app)));
        if let Some(interval) = job_every {
            app.tasks.spawn(queue_every(interval, Arc::clone(&app)));
        }
        Ok(Self { app, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of the API: the value of `github.api_url`.
    pub fn url(&self) -> String {
        self.app.read(|state| state.urls.origin().to_owned())
    }

    /// The time that its ids are derived from.
    pub fn ids_since(&self) -> Timestamp {
        self.app.read(|state| state.ids_since)
    }

    /// Sends all webhooks to this URL from now on.
    pub fn set_webhook_url(&self, url: impl Into<String>) {
        let url = url.into();
        self.app.update(|state| state.settings.webhook_url = Some(url));
    }

    /// Returns the id of the first job queued.
    pub fn queue_job(&self, request: &JobRequest) -> u64 {
        self.queue_jobs(request).first().copied().unwrap_or_default()
    }

    /// Returns the ids of the jobs queued, oldest first.
    pub fn queue_jobs(&self, request: &JobRequest) -> Vec<u64> {
        self.app.update(|state| state.queue_jobs(request))
    }

    pub fn cancel_job(&self, id: u64) -> Result<(), JobError> {
        self.app.update(|state| state.cancel(id))
    }

    /// Returns the id of the new job.
    pub fn rerun_job(&self, id: u64) -> Result<u64, JobError> {
        self.app.update(|state| state.rerun(id))
    }

    /// GitHub stops accepting this version of the runner at `ends`; `None`: GitHub does not know it.
    pub fn set_version_end(&self, version: &str, ends: Option<Timestamp>) {
        self.app.update(|state| state.set_version_end(version, ends));
    }

    /// Sends a `ping` webhook.
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

    /// Lifts the limit on the jobs of the job's run.
    pub fn release_job(&self, id: u64) -> Result<(), JobError> {
        self.app.update(|state| state.release(id))
    }

    /// Renames or transfers the repository.
    pub fn rename_repository(
        &self,
        name: &RepositoryName,
        new: RepositoryName,
    ) -> Result<(), NameTaken> {
        self.app.update(|state| state.rename_repository(name, new))
    }

    pub fn set_visibility(&self, repository: &RepositoryName, visibility: Visibility) {
        self.app.update(|state| state.set_visibility(repository, visibility));
    }

    pub fn set_access(&self, repository: &RepositoryName, access: Access) {
        self.app.update(|state| state.set_access(repository, access));
    }

    /// Suspends, uninstalls or installs the GitHub App.
    pub fn set_installation(&self, owner: &str, status: InstallationStatus) {
        self.app.update(|state| state.set_installation(owner, status));
    }

    /// Removes an idle runner's registration; the runner exits.
    pub fn unregister_runner(&self, id: u64) -> Result<(), RemoveError> {
        self.app.update(|state| state.unregister(id))
    }

    pub fn runners(&self) -> Vec<Runner> {
        self.app.read(|state| state.runners.values().cloned().collect())
    }

    /// How often a process was refused because another one had used its configuration.
    pub fn jit_reuses(&self) -> usize {
        self.app.read(|state| state.jit_reuses)
    }

    /// Every delivery attempt, in the order in which they ended.
    pub fn deliveries(&self) -> Vec<DeliveryRecord> {
        self.app.read(|state| state.deliveries.clone())
    }

    /// Redelivers the event, which records another attempt.
    pub fn redeliver(&self, delivery: &DeliveryRecord) {
        self.app.update(|state| state.redeliver(delivery.source.clone()));
    }

    /// Every REST request received.
    pub fn calls(&self) -> Vec<Call> {
        self.app.read(|state| state.calls.clone())
    }

    pub fn faults(&self) -> Faults {
        self.app.read(|state| state.faults.get().clone())
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Faults) {
        self.app.update(|state| state.faults = ActiveFaults::new(faults));
    }

    /// Rejects the installation tokens issued so far from now on.
    pub fn expire_installation_tokens(&self) {
        self.app.update(|state| state.installation_tokens.clear());
    }

    /// Calls `check` now and after every change, until it returns a value.
    pub async fn wait_for<T>(
        &self,
        within: Duration,
        mut check: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Timeout> {
        self.app.wait_for(within, || check(self)).await.ok_or(Timeout(within))
    }

    /// Stops the sandbox and waits until it has stopped.
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

/// Queues a job at once, and then another one after each interval.
async fn queue_every(interval: Duration, app: Arc<App>) {
    let queue = async {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let request = JobRequest { seconds: REGULAR_JOB_SECONDS, ..JobRequest::default() };
            app.update(|state| {
                state.forget_old(KEPT_MAX);
                // Without a runner, jobs would pile up.
                if !state.jobs.values().any(|job| job.status == JobStatus::Queued) {
                    state.queue_jobs(&request);
                }
            });
        }
    };
    app.stop.run_until_cancelled(queue).await;
}

/// Replaces a wildcard address, which clients cannot connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Replaces `axum::serve`, which cannot close a connection without a response.
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
                tracing::warn!(%error, "failed to accept a connection");
                continue;
            }
        };
        let router = router.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let response = router.call(request);
            async move {
                let Ok(response) = response.await;
                match response.extensions().get::<CloseConnection>() {
                    Some(_) => Err(ClosedByFault),
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
                        tracing::debug!(%error, "a connection failed");
                    }
                }
                () = until_end_of_grace => {}
            }
        });
    }
    graceful.shutdown().await;
}

#[derive(Debug, thiserror::Error)]
#[error("closed by a fault")]
struct ClosedByFault;
