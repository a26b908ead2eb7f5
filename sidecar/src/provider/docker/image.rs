//! Images: checks whether they are present, and pulls them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bollard::{
    auth::DockerCredentials,
    errors::Error as Bollard,
    models::{CreateImageInfo, ImageConfig},
    query_parameters::CreateImageOptions,
};
use futures_util::{FutureExt, StreamExt};
use secrecy::ExposeSecret;

use super::{Docker, Product, error, from_bollard};
use crate::{
    config::PullPolicy,
    provider::{
        error::{Error, ErrorKind},
        order::{Images, RegistryLogin, registry_of},
    },
};

/// Docker reports the progress of each layer at least every second, and retries broken
/// downloads itself.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(600);

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Identifies a pull. Concurrent callers with the same key share one pull.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PullKey {
    pub image: String,
    pub platform: Option<String>,
    pub policy: PullPolicy,
}

/// Where an image is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Present,
    Pullable,
    /// It is not present, and Podman does not ask registries.
    Unknown,
}

impl Docker {
    pub(crate) async fn prepare(&self, images: &Images) -> Result<(), Error> {
        for image in &images.names {
            let key = PullKey {
                image: with_tag(image),
                platform: images.platform.clone(),
                policy: images.pull_policy,
            };
            let start = || {
                let (docker, key) = (self.clone(), key.clone());
                let login = images.login(image).cloned();
                async move { docker.ensure_present(&key, login.as_ref()).await }.boxed()
            };
            self.pulls.run(key.clone(), start).await?;
        }
        Ok(())
    }

    /// Whether the image is present, or else could be pulled if `policy` allows it. Pulls
    /// nothing.
    pub(crate) async fn image_available(
        &self,
        product: Product,
        image: &str,
        policy: PullPolicy,
        login: Option<&RegistryLogin>,
    ) -> Result<Availability, Error> {
        let image = &with_tag(image);
        if policy != PullPolicy::Always && self.present(image, policy).await? {
            return Ok(Availability::Present);
        }
        if product == Product::Podman {
            return Ok(Availability::Unknown);
        }
        let call = format!("find image {image} in its registry");
        match self.bollard.inspect_registry_image(image, login.map(credentials)).await {
            Ok(_) => Ok(Availability::Pullable),
            Err(error) => Err(pull_error(&call, image, login.is_some(), &error)),
        }
    }

    /// Whether the image is on the machine.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, Error> {
        self.present(&with_tag(image), PullPolicy::Missing).await
    }

    /// An error if it is absent and must not be pulled.
    async fn present(&self, image: &str, policy: PullPolicy) -> Result<bool, Error> {
        let call = format!("inspect image {image}");
        match self.bollard.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. })
                if policy == PullPolicy::Never =>
            {
                let what = "it is not on this machine, and pull_policy is \"never\": \
                            pull it by hand, or set pull_policy = \"missing\"";
                Err(error(ErrorKind::Image, &call, what))
            }
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(from_bollard(&call, &error)),
        }
    }

    pub(super) async fn ensure_present(
        &self,
        key: &PullKey,
        login: Option<&RegistryLogin>,
    ) -> Result<(), Error> {
        let PullKey { image, policy, .. } = key;
        if *policy != PullPolicy::Always && self.present(image, *policy).await? {
            return Ok(());
        }
        let before = self.image_ids().await;
        self.pull(key, login).await?;
        if let Ok(before) = before {
            self.note_pulled(image, &before).await;
        }
        Ok(())
    }

    async fn pull(
        &self,
        PullKey { image, platform, .. }: &PullKey,
        login: Option<&RegistryLogin>,
    ) -> Result<(), Error> {
        let call = format!("pull image {image}");
        let started = Instant::now();
        tracing::info!(image, "pulling image");
        let options = CreateImageOptions {
            from_image: Some(image.clone()),
            platform: platform.clone().unwrap_or_default(),
            ..Default::default()
        };
        let bollard = self.bollard.clone().with_timeout(PULL_SILENCE_MAX);
        let updates = bollard.create_image(Some(options), None, login.map(credentials));
        let mut updates = std::pin::pin!(updates);
        let mut progress = Progress::default();
        let mut logged = started;
        loop {
            match tokio::time::timeout(PULL_SILENCE_MAX, updates.next()).await {
                Ok(Some(Ok(update))) => progress.add(update),
                Ok(Some(Err(error))) if is_rest_of_line(&error) => break,
                Ok(Some(Err(error))) => {
                    return Err(pull_error(&call, image, login.is_some(), &error));
                }
                Ok(None) => break,
                Err(_) => {
                    let what =
                        format_args!("no progress for {PULL_SILENCE_MAX:?}: check the registry");
                    return Err(error(ErrorKind::Image, &call, what));
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

    /// The directory that an image's command starts in; empty if the image has none.
    pub(super) async fn working_directory(&self, image: &str) -> Result<String, Error> {
        Ok(self.image_config(image).await?.working_dir.unwrap_or_default())
    }

    pub(super) async fn image_config(&self, image: &str) -> Result<ImageConfig, Error> {
        let call = format!("inspect image {image}");
        let inspected = self.bollard.inspect_image(&with_tag(image)).await;
        let inspected = inspected.map_err(|error| from_bollard(&call, &error))?;
        Ok(inspected.config.unwrap_or_default())
    }
}

pub(in crate::provider) fn credentials(login: &RegistryLogin) -> DockerCredentials {
    let password = login.password.as_ref().map(|secret| secret.expose_secret().to_owned());
    DockerCredentials {
        username: Some(login.username.clone()),
        password,
        serveraddress: Some(login.host.clone()),
        ..Default::default()
    }
}

/// How much of the layers is downloaded, of those that Docker has begun.
#[derive(Default)]
struct Progress {
    layers: HashMap<String, Layer>,
}

struct Layer {
    loaded: i64,
    bytes: i64,
}

impl Progress {
    fn add(&mut self, update: CreateImageInfo) {
        let (Some(id), Some(status)) = (update.id, update.status) else { return };
        let detail = update.progress_detail.unwrap_or_default();
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

    /// Loaded, and in total.
    fn mib(&self) -> (i64, i64) {
        let sum = |bytes: fn(&Layer) -> i64| self.layers.values().map(bytes).sum::<i64>() >> 20;
        (sum(|layer| layer.loaded), sum(|layer| layer.bytes))
    }
}

/// Bollard reads an update whose `\r\n` arrives later, and then has a `\r` left over at the end.
fn is_rest_of_line(error: &Bollard) -> bool {
    matches!(error, Bollard::IOError { err } if err.to_string() == "bytes remaining on stream")
}

fn pull_error(call: &str, image: &str, with_login: bool, cause: &Bollard) -> Error {
    let message = match cause {
        Bollard::DockerResponseServerError { message, .. } => message,
        Bollard::DockerStreamError { error } => error,
        other => return from_bollard(call, other),
    };
    let message = message.trim();
    let registry = registry_of(image);
    let lower = message.to_ascii_lowercase();
    let denied =
        ["unauthorized", "denied", "no basic auth"].iter().any(|word| lower.contains(word));
    let what = match (denied, with_login) {
        (true, true) => format!(
            "{message}; {registry} rejected the username and password that [[registries]] has for \
             it: correct them, or the image name"
        ),
        (true, false) => format!(
            "{message}; {registry} denied access without a login: write [[registries]] with \
             host = \"{registry}\", or correct the image name"
        ),
        (false, _) => {
            format!("{message}; check the image name, and that {registry} can be reached")
        }
    };
    error(ErrorKind::Image, call, what)
}

/// Without a tag Docker would pull every tag of the repository.
pub(super) fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// A name without what Docker adds to short ones.
pub(super) fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("index.").unwrap_or(name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_sum_of_the_layers() {
        let mut progress = Progress::default();
        for update in [
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
            progress.add(serde_json::from_value(update).unwrap());
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
