//! Images whose tags may have moved: asks their registries again.

use bollard::{errors::Error as Bollard, models::ImageInspect};
use futures_util::FutureExt as _;

use super::{
    Docker, from_bollard,
    image::{PullKey, familiar, with_tag},
};
use crate::{
    config::PullPolicy,
    provider::{Refreshed, error::Error, order::Images, runner_version},
};

impl Docker {
    /// Pulls an image again that is present and came from its registry. One that was built here
    /// could be replaced by another image of the same name.
    pub(crate) async fn refresh(&self, images: &Images, image: &str) -> Result<Refreshed, Error> {
        let image = with_tag(image);
        let Some(before) = self.inspect_present(&image).await? else {
            return Ok(Refreshed::LeftAlone);
        };
        if image.contains('@') || !is_from_registry(&before, &image) {
            return Ok(Refreshed::LeftAlone);
        }
        let key = PullKey {
            image: image.clone(),
            platform: images.platform.clone(),
            policy: PullPolicy::Always,
        };
        let start = || {
            let (docker, key) = (self.clone(), key.clone());
            let login = images.login(&image).cloned();
            async move { docker.ensure_present(&key, login.as_ref()).await }.boxed()
        };
        self.pulls.run(key.clone(), start).await?;
        let after = self.inspect_present(&image).await?;
        match after.is_some_and(|after| after.id != before.id) {
            true => Ok(Refreshed::Updated),
            false => Ok(Refreshed::Unchanged),
        }
    }

    /// According to the image or its name.
    pub(crate) async fn runner_version(&self, image: &str) -> Option<String> {
        if let Some(version) = runner_version::in_name(image) {
            return Some(version);
        }
        let config = self.inspect_present(&with_tag(image)).await.ok()??.config?;
        let (labels, env) = (config.labels.unwrap_or_default(), config.env.unwrap_or_default());
        runner_version::in_image(&labels, &env)
    }

    /// Boxed, because the response is large.
    pub(super) async fn inspect_present(
        &self,
        image: &str,
    ) -> Result<Option<Box<ImageInspect>>, Error> {
        match self.bollard.inspect_image(image).await {
            Ok(found) => Ok(Some(Box::new(found))),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(from_bollard(&format!("inspect image {image}"), &error)),
        }
    }
}

/// Whether the Engine has the digest that the image has in the repository of its name. Podman puts
/// images that were built or loaded without a registry under `localhost/`, with digests.
fn is_from_registry(found: &ImageInspect, image: &str) -> bool {
    let repository = repository(image);
    if repository.starts_with("localhost/") {
        return false;
    }
    let digests = found.repo_digests.iter().flatten();
    digests
        .filter_map(|digest| digest.split('@').next())
        .any(|it| self::repository(it) == repository)
}

/// Without the tag, and without what Docker adds to short names.
fn repository(image: &str) -> &str {
    let end = image.rfind('/').map_or(0, |slash| slash + 1);
    let tag = image[end..].find(':').map_or(image.len(), |colon| end + colon);
    familiar(&image[..tag])
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use axum::{Json, body::Body, response::IntoResponse as _};
    use futures_util::stream;
    use serde_json::json;

    use super::*;
    use crate::{
        config::Container,
        provider::docker::fake_engine::{Engine, refused, unexpected},
    };

    fn images(image: &str) -> Images {
        Images::new(&Container { runner_image: image.into(), ..Container::default() }, &[])
    }

    #[test]
    fn names_of_one_repository_are_the_same() {
        for (image, expected) in [
            ("docker.io/library/runner:latest", "runner"),
            ("index.docker.io/acme/runner:2", "acme/runner"),
            ("localhost:5000/acme/runner:2", "localhost:5000/acme/runner"),
            ("localhost:5000/runner", "localhost:5000/runner"),
        ] {
            assert_eq!(repository(image), expected);
        }
    }

    #[tokio::test]
    async fn a_tag_that_moved_brings_another_image() {
        let moved = Arc::new(AtomicBool::new(false));
        let pulled = moved.clone();
        let engine = Engine::start(move |call| match call {
            "GET /images/ghcr.io/acme/runner:latest/json" => Json(json!({
                "Id": if pulled.load(Ordering::SeqCst) { "sha256:02" } else { "sha256:01" },
                "RepoDigests": ["ghcr.io/acme/runner@sha256:0f"],
            }))
            .into_response(),
            "POST /images/create" => {
                pulled.store(true, Ordering::SeqCst);
                // The end of a line may arrive on its own.
                let pieces = [r#"{"status":"Pull complete"}"#, "\r\n"].map(Ok::<_, Infallible>);
                Body::from_stream(stream::iter(pieces)).into_response()
            }
            call => unexpected(call),
        })
        .await;
        let image = "ghcr.io/acme/runner";
        let refresh = async || engine.docker.refresh(&images(image), image).await.unwrap();
        assert_eq!(refresh().await, Refreshed::Updated);
        assert_eq!(refresh().await, Refreshed::Unchanged);
    }

    #[tokio::test]
    async fn images_that_are_pinned_absent_or_built_here_are_left_alone() {
        let engine = Engine::start(|call| match call {
            "GET /images/acme/absent:1/json" => refused(404, "no such image"),
            "GET /images/acme/built:1/json" => {
                // Built from a pulled one, whose digest it has not.
                Json(json!({ "Id": "sha256:01", "RepoDigests": ["acme/base@sha256:0f"] }))
                    .into_response()
            }
            "GET /images/localhost/runner:1/json" => {
                Json(json!({ "Id": "sha256:01", "RepoDigests": ["localhost/runner@sha256:0f"] }))
                    .into_response()
            }
            "GET /images/acme/pinned@sha256:0f/json" => {
                Json(json!({ "Id": "sha256:01", "RepoDigests": ["acme/pinned@sha256:0f"] }))
                    .into_response()
            }
            call => unexpected(call),
        })
        .await;
        for image in
            ["acme/absent:1", "acme/built:1", "localhost/runner:1", "acme/pinned@sha256:0f"]
        {
            let refreshed = engine.docker.refresh(&images(image), image).await;
            assert_eq!(refreshed.unwrap(), Refreshed::LeftAlone, "{image}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_does_not_answer_is_an_error() {
        let engine = Engine::start(|call| match call {
            "GET /images/acme/runner:1/json" => {
                Json(json!({ "Id": "sha256:01", "RepoDigests": ["acme/runner@sha256:0f"] }))
                    .into_response()
            }
            "POST /images/create" => refused(500, "dial tcp: connection refused"),
            call => unexpected(call),
        })
        .await;
        let error = engine.docker.refresh(&images("acme/runner:1"), "acme/runner:1").await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("connection refused"), "{error}");
    }

    #[tokio::test]
    async fn the_version_of_the_runner_is_read_without_running_it() {
        let engine = Engine::start(|call| match call {
            "GET /images/acme/runner:latest/json" => {
                Json(json!({ "Id": "sha256:01", "Config": { "Env": ["RUNNER_VERSION=2.335.0"] } }))
                    .into_response()
            }
            call => unexpected(call),
        })
        .await;
        let version = async |image| engine.docker.runner_version(image).await;
        assert_eq!(version("acme/runner").await.as_deref(), Some("2.335.0"));
        assert_eq!(version("acme/runner:2.334.0").await.as_deref(), Some("2.334.0"));
        assert_eq!(version("acme/other").await, None);
    }
}
