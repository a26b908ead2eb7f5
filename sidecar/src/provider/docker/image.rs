use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::errors::Error as Bollard;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures_util::{FutureExt, StreamExt};
use secrecy::ExposeSecret;

use super::{Cause, Docker, Error};
use crate::config::{PullPolicy, Registry};

/// Docker reports every layer's progress at least each second; it repeats
/// broken downloads itself.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(600);

const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// In images that name none.
const DOCKER_HUB: &str = "docker.io";

/// What is made sure of, and so what concurrent callers can share.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    image: String,
    platform: Option<String>,
    policy: PullPolicy,
}

/// Of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Present,
    Pullable,
}

impl Docker {
    /// Callers who want the same image at the same time share one pull.
    pub(crate) async fn ensure_image(
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

    /// Whether it is there, or else could be pulled if `policy` lets it. Pulls nothing.
    pub(crate) async fn image_available(
        &self,
        image: &str,
        policy: PullPolicy,
    ) -> Result<Availability, Error> {
        let image = &with_tag(image);
        if policy != PullPolicy::Always && self.present(image, policy).await? {
            return Ok(Availability::Present);
        }
        let call = format!("look for image {image} in its registry");
        let registry = self.registries.iter().find(|known| known.host == registry_of(image));
        match self.bollard.inspect_registry_image(image, registry.map(credentials)).await {
            Ok(_) => Ok(Availability::Pullable),
            Err(error) => Err(pull_error(&call, image, registry.is_some(), &error)),
        }
    }

    /// An error if it is not there and must not be pulled.
    async fn present(&self, image: &str, policy: PullPolicy) -> Result<bool, Error> {
        let call = format!("look for image {image}");
        match self.bollard.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. })
                if policy == PullPolicy::Never =>
            {
                let what = "it is not on this machine and pull_policy is \"never\": \
                            pull it by hand, or set pull_policy = \"missing\"";
                Err(Error::new(Cause::ImageMissing, &call, what))
            }
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(Error::from_bollard(&call, &error)),
        }
    }

    async fn obtain(&self, wanted: &Wanted) -> Result<(), Error> {
        let Wanted { image, policy, .. } = wanted;
        if *policy != PullPolicy::Always && self.present(image, *policy).await? {
            return Ok(());
        }
        self.pull(wanted).await
    }

    async fn pull(&self, Wanted { image, platform, .. }: &Wanted) -> Result<(), Error> {
        let call = format!("pull image {image}");
        let started = Instant::now();
        tracing::info!(image, "pulling image");
        let options = CreateImageOptions {
            from_image: Some(image.clone()),
            platform: platform.clone().unwrap_or_default(),
            ..Default::default()
        };
        let registry = self.registries.iter().find(|known| known.host == registry_of(image));
        let bollard = self.bollard.clone().with_timeout(PULL_SILENCE_MAX);
        let told = bollard.create_image(Some(options), None, registry.map(credentials));
        let mut told = std::pin::pin!(told);
        let mut progress = Progress::default();
        let mut logged = started;
        loop {
            match tokio::time::timeout(PULL_SILENCE_MAX, told.next()).await {
                Ok(Some(Ok(news))) => progress.take(news),
                Ok(Some(Err(error))) => {
                    return Err(pull_error(&call, image, registry.is_some(), &error));
                }
                Ok(None) => break,
                Err(_) => {
                    let what =
                        format_args!("no progress for {PULL_SILENCE_MAX:?}; check the registry");
                    return Err(Error::new(Cause::PullFailed, &call, what));
                }
            }
            if logged.elapsed() >= PROGRESS_EVERY {
                logged = Instant::now();
                let (loaded, all) = progress.mib();
                let percent = loaded * 100 / all.max(1);
                tracing::info!(image, percent, loaded_mib = loaded, of_mib = all, "pulling image");
            }
        }
        tracing::info!(image, elapsed_ms = started.elapsed().as_millis() as u64, "image pulled");
        Ok(())
    }

    /// In which an image's command starts; empty if it does not say.
    pub(super) async fn working_directory(&self, image: &str) -> Result<String, Error> {
        let call = format!("look at image {image}");
        let seen = self.bollard.inspect_image(&with_tag(image)).await;
        let config = seen.map_err(|error| Error::from_bollard(&call, &error))?.config;
        Ok(config.and_then(|config| config.working_dir).unwrap_or_default())
    }
}

fn credentials(registry: &Registry) -> DockerCredentials {
    let password = registry.password.as_ref().map(|secret| secret.expose_secret().to_owned());
    DockerCredentials {
        username: Some(registry.username.clone()),
        password,
        serveraddress: Some(registry.host.clone()),
        ..Default::default()
    }
}

/// Of the layers that Docker has begun to load.
#[derive(Default)]
struct Progress {
    layers: HashMap<String, Layer>,
}

struct Layer {
    loaded: i64,
    bytes: i64,
}

impl Progress {
    fn take(&mut self, news: CreateImageInfo) {
        let (Some(id), Some(status)) = (news.id, news.status) else { return };
        let detail = news.progress_detail.unwrap_or_default();
        match (&*status, detail.current, detail.total) {
            ("Downloading", Some(loaded), Some(bytes)) => {
                self.layers.insert(id, Layer { loaded, bytes });
            }
            ("Download complete" | "Extracting" | "Pull complete", ..) => {
                if let Some(layer) = self.layers.get_mut(&id) {
                    layer.loaded = layer.bytes;
                }
            }
            _ => {}
        }
    }

    /// Loaded, and all.
    fn mib(&self) -> (i64, i64) {
        let sum = |bytes: fn(&Layer) -> i64| self.layers.values().map(bytes).sum::<i64>() >> 20;
        (sum(|layer| layer.loaded), sum(|layer| layer.bytes))
    }
}

fn pull_error(call: &str, image: &str, with_credentials: bool, error: &Bollard) -> Error {
    let said = match error {
        Bollard::DockerResponseServerError { message, .. } => message,
        Bollard::DockerStreamError { error } => error,
        other => return Error::from_bollard(call, other),
    };
    let said = said.trim();
    let registry = registry_of(image);
    let lower = said.to_ascii_lowercase();
    let refused =
        ["unauthorized", "denied", "no basic auth"].iter().any(|word| lower.contains(word));
    let what = match (refused, with_credentials) {
        (true, true) => format!(
            "{said}; {registry} refuses it with the username and password that [[registries]] \
             has for it: correct them, or the image's name"
        ),
        (true, false) => format!(
            "{said}; {registry} refuses it without credentials: write [[registries]] with \
             host = \"{registry}\", or correct the image's name"
        ),
        (false, _) => format!("{said}; check the image's name, and that {registry} is reached"),
    };
    Error::new(Cause::PullFailed, call, what)
}

/// By Docker's rule: what stands before the first slash, if it looks like a host.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
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
    fn the_registry_is_what_docker_takes_for_it() {
        for (image, expected) in [
            ("runner", "docker.io"),
            ("acme/runner:1", "docker.io"),
            ("docker.io/acme/runner", "docker.io"),
            ("ghcr.io/a/runner@sha256:0f", "ghcr.io"),
            ("localhost/runner", "localhost"),
            ("127.0.0.1:5000/runner:2", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(image), expected);
        }
    }

    #[test]
    fn progress_is_the_sum_of_the_layers() {
        let mut progress = Progress::default();
        for news in [
            serde_json::json!({ "status": "Pulling from acme/runner", "id": "latest" }),
            serde_json::json!({ "status": "Already exists", "id": "a", "progressDetail": {} }),
            serde_json::json!({ "status": "Downloading", "id": "b",
                "progressDetail": { "current": 1 << 20, "total": 4 << 20 } }),
            serde_json::json!({ "status": "Downloading", "id": "c",
                "progressDetail": { "current": 1 << 20, "total": 2 << 20 } }),
            serde_json::json!({ "status": "Downloading", "id": "b",
                "progressDetail": { "current": 3 << 20, "total": 4 << 20 } }),
            serde_json::json!({ "status": "Download complete", "id": "c", "progressDetail": {} }),
        ] {
            progress.take(serde_json::from_value(news).unwrap());
        }
        assert_eq!(progress.mib(), (5, 6));
    }

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
