use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::query_parameters::CreateImageOptions;
use futures_util::{FutureExt, StreamExt};

use super::{Cause, Docker, Error};

/// Docker reports every layer's progress at least each second; it repeats
/// broken downloads itself.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    #[default]
    Missing,
    Always,
    Never,
}

/// What is made sure of, and so what concurrent callers can share.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    image: String,
    platform: Option<String>,
    policy: PullPolicy,
}

impl Docker {
    /// Callers who want the same image at the same time share one pull.
    pub async fn ensure_image(
        &self,
        image: &str,
        platform: Option<&str>,
        policy: PullPolicy,
    ) -> Result<(), Error> {
        let wanted =
            Wanted { image: with_tag(image), platform: platform.map(str::to_owned), policy };
        let obtain = || {
            let (docker, wanted) = (self.clone(), wanted.clone());
            async move { docker.obtain(&wanted).await }.boxed()
        };
        self.images.join(wanted.clone(), obtain).await
    }

    async fn obtain(&self, wanted: &Wanted) -> Result<(), Error> {
        let Wanted { image, policy, .. } = wanted;
        if *policy != PullPolicy::Always {
            let call = format!("look for image {image}");
            match self.bollard.inspect_image(image).await {
                Ok(_) => return Ok(()),
                Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(Error::from_bollard(&call, &error)),
            }
            if *policy == PullPolicy::Never {
                let what = "it is not on this machine and pull_policy is \"never\": \
                            pull it by hand, or set pull_policy = \"missing\"";
                return Err(Error::new(Cause::ImageMissing, &call, what));
            }
        }
        self.pull(wanted).await
    }

    async fn pull(&self, Wanted { image, platform, .. }: &Wanted) -> Result<(), Error> {
        let call = format!("pull image {image}");
        let started = std::time::Instant::now();
        tracing::info!(image, "pulling image");
        let options = CreateImageOptions {
            from_image: Some(image.clone()),
            platform: platform.clone().unwrap_or_default(),
            ..Default::default()
        };
        let bollard = self.bollard.clone().with_timeout(PULL_SILENCE_MAX);
        let mut progress = std::pin::pin!(bollard.create_image(Some(options), None, None));
        loop {
            match tokio::time::timeout(PULL_SILENCE_MAX, progress.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(pull_error(&call, &error)),
                Ok(None) => break,
                Err(_) => {
                    let what =
                        format_args!("no progress for {PULL_SILENCE_MAX:?}; check the registry");
                    return Err(Error::new(Cause::PullFailed, &call, what));
                }
            }
        }
        tracing::info!(image, elapsed_ms = started.elapsed().as_millis() as u64, "image pulled");
        Ok(())
    }
}

fn pull_error(call: &str, error: &Bollard) -> Error {
    let said = match error {
        Bollard::DockerResponseServerError { message, .. } => message,
        Bollard::DockerStreamError { error } => error,
        other => return Error::from_bollard(call, other),
    };
    let said = said.trim();
    let what = format_args!("{said}; check the image's name, the registry and access to it");
    Error::new(Cause::PullFailed, call, what)
}

/// Without a tag Docker would pull every tag of the repository.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_without_tag_or_digest_gets_a_tag() {
        for (image, expected) in [
            ("runner", "runner:latest"),
            ("ghcr.io/a/runner", "ghcr.io/a/runner:latest"),
            ("localhost:5000/runner", "localhost:5000/runner:latest"),
            ("localhost:5000/runner:2", "localhost:5000/runner:2"),
            ("ghcr.io/a/runner@sha256:0f", "ghcr.io/a/runner@sha256:0f"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }
}
