//! Has a provider keep the machine of a runner that has a job.

use tracing::warn;

use super::Executor;

impl Executor {
    /// `place`: index of its provider.
    pub(crate) async fn protect(self, place: usize, runner: String) {
        let protected = self.shared.places[place].provider.protect(&runner).await;
        if let Err(error) = protected {
            warn!(runner, %error, "the cluster may end this runner during its job");
        }
    }
}
