//! The seam between the control loop and the machines that runners run on.
//!
//! A closed enum, so that each `match` is complete. Names of runners are unique, and a
//! provider keeps no list of them: what [`Provider::list`] returns is the truth.

pub(crate) mod docker;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod instance;
mod labels;
mod order;
pub(crate) mod registration;

use std::{collections::HashSet, time::Duration};

use futures_util::stream::{BoxStream, StreamExt as _};

use self::docker::Docker;
#[cfg(test)]
use self::fake::Fake;
pub(crate) use self::{
    error::{Error, ErrorKind},
    instance::{Exit, Instance, InstanceState, Launched},
    labels::Labels,
    order::{Images, Order, RegistryLogin},
};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) enum Provider {
    Docker(Docker),
    #[cfg(test)]
    Fake(Fake),
}

impl Provider {
    /// Pulls the images if they are missing. Called before credentials are requested, which
    /// must not expire during a pull.
    pub(crate) async fn prepare(&self, images: &Images) -> Result<(), Error> {
        match self {
            Self::Docker(docker) => docker.prepare(images).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.prepare(images).await,
        }
    }

    /// Returns once the runner has started. Idempotent by the runner's name: a second call
    /// with the same labels starts nothing a second time. After an error, or if the call is
    /// dropped, the runner may still exist: remove it.
    pub(crate) async fn launch(&self, order: &Order) -> Result<Launched, Error> {
        match self {
            Self::Docker(docker) => docker.launch(order).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.launch(order).await,
        }
    }

    /// Asks the runner to stop, kills it after `grace`, and removes it with everything that
    /// belongs to it. A runner that does not exist counts as removed. Bounded in time.
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        match self {
            Self::Docker(docker) => docker.remove(runner, grace).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.remove(runner).await,
        }
    }

    /// All runners of this installation. One that cannot be inspected is logged once and counts
    /// as running, so that no action follows from it. Bounded in time.
    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        match self {
            Self::Docker(docker) => docker.list().await,
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
            #[cfg(test)]
            Self::Fake(fake) => fake.exits().boxed(),
        }
    }

    /// The last lines that the runner wrote, at most `lines` and 64 KiB, without its
    /// credentials and the values of `env` that it was launched with. Bounded in time.
    pub(crate) async fn log(&self, runner: &str, lines: usize) -> Result<String, Error> {
        match self {
            Self::Docker(docker) => docker.log(runner, lines).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.log(runner).await,
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
            #[cfg(test)]
            Self::Fake(fake) => fake.sweep(alive).await,
        }
    }
}
