//! The seam between the control loop and the machines that runners run on.
//!
//! A closed enum, so that each `match` is complete. Names of runners are unique, and a
//! provider keeps no list of them: what [`Provider::list`] returns is the truth.

mod capacity;
pub(crate) mod docker;
pub(crate) mod egress;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod instance;
pub(crate) mod kubernetes;
mod labels;
mod made_space;
mod masked;
pub(crate) mod node;
mod node_task;
mod order;
pub(crate) mod registration;
mod report;
pub(crate) mod runner_version;
pub(crate) mod swarm;
mod usage;

use std::{collections::HashSet, time::Duration};

use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;

use self::docker::Docker;
#[cfg(test)]
use self::fake::Fake;
pub(crate) use self::{
    capacity::Capacity,
    error::{Error, ErrorKind},
    instance::{Exit, Instance, InstanceState, Launched},
    labels::{Labels, Parked, ParkedContainer},
    made_space::{MadeSpace, PulledImage},
    node::Node,
    node_task::NodeTask,
    order::{Images, Order, RegistryLogin},
    report::Report,
    usage::Usage,
};
use self::{egress::Denial, kubernetes::Kubernetes, swarm::Swarm};

/// What came of asking for a tag again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The tag names another image than before, which is present now.
    Updated,
    Unchanged,
    /// The registry was not asked: the image is absent, has a digest, or was built here.
    LeftAlone,
}

/// Called with the reason while a launch waits for room on the provider's machines, and with `None`
/// once it goes on.
pub(crate) type OnWait<'a> = &'a (dyn Fn(Option<String>) + Send + Sync);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) enum Provider {
    Docker(Docker),
    Swarm(Swarm),
    Kubernetes(Kubernetes),
    #[cfg(test)]
    Fake(Fake),
}

impl Provider {
    /// Pulls the images if they are missing. Called before credentials are requested, which
    /// must not expire during a pull.
    pub(crate) async fn prepare(&self, images: &Images) -> Result<(), Error> {
        match self {
            Self::Docker(docker) => docker.prepare(images).await,
            // The node that is chosen pulls them.
            Self::Swarm(_) | Self::Kubernetes(_) => Ok(()),
            #[cfg(test)]
            Self::Fake(fake) => fake.prepare(images).await,
        }
    }

    /// Asks the registry of one of the images, `image`, whether its tag names another image now,
    /// and pulls that. What is present stays usable all the while.
    pub(crate) async fn refresh(&self, images: &Images, image: &str) -> Result<Refreshed, Error> {
        match self {
            Self::Docker(docker) => docker.refresh(images, image).await,
            // Each node pulls for itself.
            Self::Swarm(_) | Self::Kubernetes(_) => Ok(Refreshed::LeftAlone),
            #[cfg(test)]
            Self::Fake(fake) => fake.refresh(image).await,
        }
    }

    /// The version of the runner in an image, if the image or its name shows it.
    pub(crate) async fn runner_version(&self, image: &str) -> Option<String> {
        match self {
            Self::Docker(docker) => docker.runner_version(image).await,
            Self::Swarm(_) | Self::Kubernetes(_) => runner_version::in_name(image),
            #[cfg(test)]
            Self::Fake(_) => runner_version::in_name(image),
        }
    }

    /// Returns once the runner has started. Idempotent by the runner's name: a second call
    /// with the same labels starts nothing a second time. After an error, or if the call is
    /// dropped, the runner may still exist: remove it.
    pub(crate) async fn launch(
        &self,
        order: &Order,
        on_wait: OnWait<'_>,
    ) -> Result<Launched, Error> {
        match self {
            Self::Docker(docker) => Box::pin(docker.launch(order)).await,
            Self::Swarm(swarm) => swarm.launch(order, on_wait).await,
            Self::Kubernetes(kubernetes) => Box::pin(kubernetes.launch(order, on_wait)).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.launch(order, on_wait).await,
        }
    }

    /// Returns once the runner is parked: everything is there but its command, which begins once it
    /// is woken. Otherwise like [`Self::launch`]. The labels of `order` say that it is parked.
    pub(crate) async fn park(&self, order: &Order) -> Result<ParkedContainer, Error> {
        match self {
            Self::Docker(docker) => Box::pin(docker.park(order)).await,
            // No pool is configured so.
            Self::Swarm(_) | Self::Kubernetes(_) => Err(Error {
                kind: ErrorKind::Refused,
                message: "only the provider docker can park runners".into(),
            }),
            #[cfg(test)]
            Self::Fake(fake) => fake.park(order).await,
        }
    }

    /// Makes the command of a parked runner begin, and returns once it has. `again`: it may have
    /// begun already, and then nothing happens. [`ErrorKind::Gone`]: its container does not run any
    /// more. Bounded in time.
    pub(crate) async fn wake(&self, runner: &str, again: bool) -> Result<(), Error> {
        match self {
            Self::Docker(docker) => docker.wake(runner, again).await,
            Self::Swarm(_) | Self::Kubernetes(_) => Err(Error {
                kind: ErrorKind::Refused,
                message: "only the provider docker can wake runners".into(),
            }),
            #[cfg(test)]
            Self::Fake(fake) => fake.wake(runner).await,
        }
    }

    /// A job runs on the runner: its machine must not be taken away from it, if that is anybody's
    /// habit. Does nothing the second time. Bounded in time.
    pub(crate) async fn protect(&self, runner: &str) -> Result<(), Error> {
        match self {
            Self::Docker(_) | Self::Swarm(_) => Ok(()),
            Self::Kubernetes(kubernetes) => kubernetes.protect(runner).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.protect(runner).await,
        }
    }

    /// Asks the runner to stop, kills it after `grace`, and removes it with everything that
    /// belongs to it. A runner that does not exist counts as removed. Bounded in time.
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        match self {
            Self::Docker(docker) => docker.remove(runner, grace).await,
            Self::Swarm(swarm) => swarm.remove(runner, grace).await,
            Self::Kubernetes(kubernetes) => kubernetes.remove(runner, grace).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.remove(runner).await,
        }
    }

    /// All runners of this installation. One that cannot be inspected is logged once and counts
    /// as running, so that no action follows from it. Bounded in time.
    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        match self {
            Self::Docker(docker) => docker.list().await,
            Self::Swarm(swarm) => swarm.list().await,
            Self::Kubernetes(kubernetes) => kubernetes.list().await,
            #[cfg(test)]
            Self::Fake(fake) => fake.list().await,
        }
    }

    /// Exits from now on, and those of the last seconds, even if the stream is polled later.
    /// A hint: some may be missing or repeated. Ends with an error when the provider goes
    /// away: then call it again and list, in this order.
    pub(crate) fn exits(&self) -> BoxStream<'static, Result<Exit, Error>> {
        match self {
            Self::Docker(docker) => docker.exits().boxed(),
            Self::Swarm(swarm) => swarm.exits().boxed(),
            Self::Kubernetes(kubernetes) => kubernetes.exits().boxed(),
            #[cfg(test)]
            Self::Fake(fake) => fake.exits().boxed(),
        }
    }

    /// The last lines that the runner wrote, at most `lines` and 64 KiB, without its
    /// credentials and the values of `env` that it was launched with. Bounded in time.
    pub(crate) async fn log(&self, runner: &str, lines: usize) -> Result<String, Error> {
        match self {
            Self::Docker(docker) => docker.log(runner, lines).await,
            Self::Swarm(swarm) => swarm.log(runner, lines).await,
            Self::Kubernetes(kubernetes) => kubernetes.log(runner, lines).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.log(runner).await,
        }
    }

    /// What a runner uses; `None` if its machine is not within reach. `has_engine`: it has an Engine
    /// of its own. Bounded in time.
    pub(crate) async fn usage(
        &self,
        runner: &str,
        has_engine: bool,
    ) -> Result<Option<Usage>, Error> {
        match self {
            Self::Docker(docker) => docker.usage(runner, has_engine).await.map(Some),
            // The Engines of its nodes are not within reach.
            Self::Swarm(_) | Self::Kubernetes(_) => Ok(None),
            #[cfg(test)]
            Self::Fake(fake) => Ok(fake.usage(runner)),
        }
    }

    /// Removes leftovers of runners that no longer exist. `alive` resolves to the names of
    /// runners that may exist although the provider does not list them. It is polled after
    /// leftovers are listed: a runner is recorded before anything is created for it. One bad
    /// item does not stop the others; the errors are returned.
    pub(crate) async fn sweep<E: From<Error>>(
        &self,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
    ) -> Result<Vec<Error>, E> {
        match self {
            Self::Docker(docker) => docker.sweep(alive).await,
            Self::Swarm(swarm) => swarm.sweep(alive).await,
            // What belongs to a pod goes with it.
            Self::Kubernetes(_) => Ok(Vec::new()),
            #[cfg(test)]
            Self::Fake(fake) => fake.sweep(alive).await,
        }
    }

    /// Sends the connections that pools' `egress` does not permit, for as long as the process runs.
    pub(crate) async fn report_denials(&self, denials: mpsc::Sender<Denial>) {
        match self {
            Self::Docker(docker) => docker.clone().report_denials(denials).await,
            // The Envoys of its nodes are not within reach.
            Self::Swarm(_) | Self::Kubernetes(_) => {}
            #[cfg(test)]
            Self::Fake(_) => {}
        }
    }

    /// The machines that it runs runners on, by name; `None` if there is but one, or if they are not
    /// ours to list.
    pub(crate) async fn nodes(&self) -> Option<Result<Vec<Node>, Error>> {
        match self {
            Self::Docker(_) | Self::Kubernetes(_) => None,
            Self::Swarm(swarm) => Some(swarm.nodes().await),
            #[cfg(test)]
            Self::Fake(fake) => fake.nodes(),
        }
    }

    /// Whether it runs runners on several machines.
    pub(crate) fn has_nodes(&self) -> bool {
        match self {
            Self::Docker(_) => false,
            Self::Swarm(_) | Self::Kubernetes(_) => true,
            #[cfg(test)]
            Self::Fake(fake) => fake.nodes().is_some(),
        }
    }

    /// What its machine has; `None` if there are several. Bounded in time.
    pub(crate) async fn capacity(&self) -> Option<Result<Capacity, Error>> {
        match self {
            Self::Docker(docker) => Some(docker.capacity().await),
            Self::Swarm(_) | Self::Kubernetes(_) => None,
            #[cfg(test)]
            Self::Fake(fake) => fake.capacity(),
        }
    }

    /// The images that were pulled since the last call and were not there before.
    pub(crate) fn take_pulled(&self) -> Vec<PulledImage> {
        match self {
            Self::Docker(docker) => docker.take_pulled(),
            // Each node pulls for itself.
            Self::Swarm(_) | Self::Kubernetes(_) => Vec::new(),
            #[cfg(test)]
            Self::Fake(fake) => fake.take_pulled(),
        }
    }

    /// Removes what was made for this installation and nobody needs, until `enough_mib` of the disk
    /// are free: the images of `pulled`, the oldest first, that `named`, those of all pools, does
    /// not contain; then tool caches. Whatever anybody else made, named or uses stays.
    pub(crate) async fn make_space(
        &self,
        pulled: &[PulledImage],
        named: &[String],
        enough_mib: u64,
    ) -> Result<MadeSpace, Error> {
        match self {
            Self::Docker(docker) => docker.make_space(pulled, named, enough_mib).await,
            Self::Swarm(_) | Self::Kubernetes(_) => Ok(MadeSpace::default()),
            #[cfg(test)]
            Self::Fake(fake) => fake.make_space(pulled, named).await,
        }
    }

    /// Drains a machine, by its name or ID, or ends that. Refused if there is but one.
    pub(crate) async fn drain_node(&self, node: &str, drain: bool) -> Result<(), Error> {
        match self {
            Self::Swarm(swarm) => swarm.drain_node(node, drain).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.drain_node(node, drain).await,
            Self::Kubernetes(_) => Err(Error {
                kind: ErrorKind::Refused,
                message: format!(
                    "nodes of Kubernetes are the cluster's: run kubectl cordon {node}"
                ),
            }),
            Self::Docker(_) => {
                Err(Error { kind: ErrorKind::Gone, message: format!("no such node: {node}") })
            }
        }
    }

    /// Launches that may be under way at once: more would only slow each other down.
    pub(crate) fn launches_max(&self) -> usize {
        match self {
            Self::Docker(_) => 16,
            Self::Swarm(_) | Self::Kubernetes(_) => 64,
            #[cfg(test)]
            Self::Fake(_) => 16,
        }
    }
}
