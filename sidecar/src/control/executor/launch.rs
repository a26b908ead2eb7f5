//! Launches a runner: image, credentials, then the provider.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{Instrument as _, debug, error, error_span, info, trace_span, warn};

use super::Executor;
use crate::{
    config::{PoolConfig, PullPolicy},
    control::clock,
    github,
    provider::{self, Images, Labels, Order, Parked, ParkedContainer, registration::Credentials},
    store,
    telemetry::{metrics, traces},
};
use edgerunner_scheduler::{
    model::{Cause, Instant as SinceBoot, UnixMs},
    plan::{Event, Launch, Stage},
};

/// Why a launch or another request failed, as far as the planner needs to know.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) message: String,
    pub(super) retry_after: Duration,
    /// Whether a container may exist anyway.
    may_exist: bool,
    /// GitHub was not asked, because another launch had just failed so.
    repeated: bool,
}

impl Failure {
    fn new(cause: Cause, message: String) -> Self {
        Self { cause, message, retry_after: Duration::ZERO, may_exist: false, repeated: false }
    }

    pub(super) fn retry_after_ms(&self) -> u64 {
        u64::try_from(self.retry_after.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A launch waits for room.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    /// The provider's.
    pub(super) message: String,
    pub(super) credentials_end: SinceBoot,
}

/// A stage of a launch: a span of its trace, and measured if it succeeds.
async fn stage<T, E>(
    pool: &str,
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let begun = Instant::now();
    let span = trace_span!(target: traces::TARGET, "stage", otel.name = name);
    let done = work.instrument(span).await?;
    metrics::launch_stage(pool, name, begun.elapsed());
    Ok(done)
}

impl Executor {
    /// `recorded`: the pending write of the runner's record.
    pub(crate) async fn launch(
        self,
        pool: Arc<PoolConfig>,
        launch: Launch,
        created_at: UnixMs,
        recorded: impl Future<Output = Result<(), store::Error>> + Send,
    ) {
        let span = error_span!(
            target: traces::TARGET,
            "launch",
            delivery = launch.prompted_by,
            runner = launch.runner,
            pool = pool.name,
            target = %launch.target,
            host = %launch.target.host,
        );
        self.shared.traces.join(&span, launch.prompted_by.as_deref());
        async {
            let begun = Instant::now();
            // The planner gives up a little later, so that a launch ends in one event only.
            let limit = Duration::from_millis(pool.limits.provisioning_ms);
            let (room, waits) = watch::channel(None);
            let launched = self.try_launch(&pool, &launch, created_at, begun, recorded, &room);
            let result = self.within(limit, launched, waits, &launch).await;
            let runner = launch.runner.clone();
            let event = match result {
                Ok(None) => {
                    metrics::launched(&pool.name, begun.elapsed().as_secs_f64());
                    Event::Launched { runner }
                }
                Ok(Some(container)) => {
                    Event::Parked { runner, started: container == ParkedContainer::Waiting }
                }
                Err(failure) => {
                    let retry_after_ms = failure.retry_after_ms();
                    let Failure { cause, message, may_exist, repeated, .. } = failure;
                    metrics::launch_failed(&pool.name, cause);
                    traces::failed(&message);
                    match repeated {
                        false => error!(cause = cause.as_str(), error = message, "launch failed"),
                        true => {
                            debug!(cause = cause.as_str(), error = message, "launch failed too");
                        }
                    }
                    Event::LaunchFailed { runner, cause, message, retry_after_ms, may_exist }
                }
            };
            self.send(event).await;
        }
        .instrument(span)
        .await;
    }

    /// Ends a launch after `limit`, which does not run while the launch waits for room.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        launched: impl Future<Output = Result<T, Failure>>,
        mut waits: watch::Receiver<Option<Wait>>,
        launch: &Launch,
    ) -> Result<T, Failure> {
        let mut launched = std::pin::pin!(launched);
        let mut deadline = std::pin::pin!(sleep_until(Instant::now() + limit));
        let mut waiting = false;
        loop {
            tokio::select! {
                biased;
                result = &mut launched => return result,
                Ok(()) = waits.changed() => {
                    let why = waits.borrow_and_update().clone();
                    waiting = why.is_some();
                    match why {
                        Some(Wait { message, credentials_end }) => {
                            info!(why = message, "the launch waits for room");
                            let runner = launch.runner.clone();
                            self.send(Event::NoRoom { runner, message, credentials_end }).await;
                        }
                        None => {
                            deadline.as_mut().reset(Instant::now() + limit);
                            self.progress(launch, Stage::Container).await;
                        }
                    }
                }
                () = &mut deadline, if !waiting => {
                    return Err(Failure {
                        cause: Cause::TimedOut,
                        message: format!("the launch took longer than {} s", limit.as_secs()),
                        retry_after: Duration::ZERO,
                        may_exist: true,
                        repeated: false,
                    });
                }
            }
        }
    }

    /// Returns how the runner is parked, if it is.
    async fn try_launch(
        &self,
        pool: &PoolConfig,
        launch: &Launch,
        created_at: UnixMs,
        begun: Instant,
        recorded: impl Future<Output = Result<(), store::Error>> + Send,
        room: &watch::Sender<Option<Wait>>,
    ) -> Result<Option<ParkedContainer>, Failure> {
        let shared = &*self.shared;
        let place = &shared.places[pool.place];
        let name = pool.name.as_str();
        let mut images = Images::new(&pool.container, &shared.registries);
        let pulls = shared.refreshes.pulls(name, &pool.container.runner_image);
        if pulls && place.provider.has_nodes() {
            // The node that is chosen pulls them.
            images.pull_policy = PullPolicy::Always;
        }
        let labels = Labels {
            instance: shared.instance.clone(),
            pool: pool.name.clone(),
            runner: launch.runner.clone(),
            host: launch.target.host.to_string(),
            target: launch.target.to_string(),
            launched_unix_ms: created_at,
            devices: launch.devices.clone(),
            parameters: launch.parameters.to_string(),
            parked: launch
                .park
                .then(|| Parked { container: ParkedContainer::Waiting, revision: pool.revision() }),
        };
        // Before GitHub and the provider are called: after a crash the record names the
        // runner to remove.
        let recorded = recorded.map_err(Failure::from);
        // The image before the credentials, which must not expire during a pull, and before
        // the permit: a pull for one pool must not delay the launches of others.
        self.progress(launch, Stage::Image).await;
        let prepared = async {
            if pulls {
                self.pull_again(pool, &images).await;
            }
            let prepared = place.provider.prepare(&images).await;
            self.record_pulled(pool.place).await;
            prepared.map_err(Failure::from)
        };
        stage(name, "image", async { tokio::try_join!(recorded, prepared) }).await?;
        let credentials = self.credentials(pool, launch, begun).await?;
        if let Some(registration_id) = credentials.registration_id {
            let runner = launch.runner.clone();
            self.send(Event::Registered { runner, registration_id }).await;
        }
        self.progress(launch, Stage::Container).await;
        let now = clock::now();
        let credentials_end = now.instant + credentials.valid_for;
        let order = {
            let credentials_end = now.wall_of(credentials_end);
            Order::new(labels, images, pool, credentials.env, credentials_end)
        };
        if launch.park {
            let parked = stage(name, "container", async {
                let _permit = place.launches.acquire().await.ok();
                place
                    .provider
                    .park(&order)
                    .await
                    .map_err(|error| Failure { may_exist: true, ..Failure::from(error) })
            });
            let container = parked.await?;
            debug!(container = container.as_str(), image = order.image, "runner parked");
            return Ok(Some(container));
        }
        let launched = stage(name, "container", async {
            // One that waits for room must not keep others from being launched.
            let permit = Mutex::new(place.launches.acquire().await.ok());
            let on_wait = |why: Option<String>| {
                if why.is_some() {
                    permit.lock().unwrap_or_else(PoisonError::into_inner).take();
                }
                room.send_replace(why.map(|message| Wait { message, credentials_end }));
            };
            place.provider.launch(&order, &on_wait).await.map_err(|error| {
                // It may have got far enough for a container to exist.
                Failure { may_exist: true, ..Failure::from(error) }
            })
        });
        let launched = launched.await?;
        let node = launched.node.clone();
        shared.node_names.set(&launch.runner, launched.node);
        info!(container = launched.id, node, image = order.image, "container started");
        Ok(None)
    }

    /// Without a permit of [`super::Shared::launches`]: requests at a target that does not
    /// answer must not hold up the launches at others.
    async fn credentials(
        &self,
        pool: &PoolConfig,
        launch: &Launch,
        begun: Instant,
    ) -> Result<Credentials, Failure> {
        let shared = &*self.shared;
        let place = (launch.target.clone(), launch.credential);
        let turn = shared.registrations.enter(&place).map(Ok::<_, Failure>);
        let turn = stage(&pool.name, "turn", turn).await?;
        let of = (pool.name.clone(), launch.parameters.clone());
        if let Some((other, failure)) = turn.failure(begun)
            && (failure.cause != Cause::Rejected || other == of)
        {
            return Err(Failure { repeated: true, ..failure });
        }
        self.progress(launch, Stage::Credentials).await;
        let credentials = async {
            let client = shared.clients.by_index(launch.credential);
            let target = &launch.target.target;
            let credentials = Credentials::get(client, pool, target, &launch.runner).await;
            let error = credentials.as_ref().err();
            shared.clients.note(launch.credential, &launch.target, error);
            credentials
        };
        let credentials = stage(&pool.name, "credentials", credentials).await;
        let credentials = credentials.map_err(Failure::from);
        match &credentials {
            Ok(_) => turn.succeeded(),
            Err(failure) => turn.failed((of, failure.clone())),
        }
        credentials
    }

    /// Pulls the images of all pools, so that the first job of each does not wait for it.
    pub(crate) async fn pull_images(self) {
        for pool in self.pools().iter() {
            let place = pool.place;
            for container in pool.containers() {
                let images = Images::new(&container, &self.shared.registries);
                if let Err(error) = self.shared.places[place].provider.prepare(&images).await {
                    warn!(pool = pool.name, %error, "its image is not available yet");
                }
                self.record_pulled(place).await;
            }
        }
    }

    async fn progress(&self, launch: &Launch, stage: Stage) {
        self.send(Event::Progress { runner: launch.runner.clone(), stage }).await;
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let message = error.to_string();
        Self::new(Cause::Store, message)
    }
}

impl From<provider::Error> for Failure {
    fn from(error: provider::Error) -> Self {
        let provider::Error { kind, message } = error;
        Self::new(kind.into(), message)
    }
}

impl From<github::Error> for Failure {
    fn from(error: github::Error) -> Self {
        use github::ErrorKind as Kind;
        let cause = match error.kind {
            Kind::Unauthorized => Cause::Unauthorized,
            Kind::Forbidden | Kind::NotFound => Cause::Forbidden,
            Kind::RateLimited => Cause::RateLimited,
            Kind::NameTaken | Kind::Invalid => Cause::Rejected,
            Kind::Server | Kind::Unreachable | Kind::TimedOut => Cause::GitHubUnavailable,
            Kind::UnexpectedResponse => Cause::UnexpectedResponse,
        };
        let retry_after = error.retry_after.unwrap_or_default();
        Self { retry_after, ..Self::new(cause, error.to_string()) }
    }
}
