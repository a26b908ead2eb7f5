//! Mirrors of Docker Hub for the Engines of runners.

use anyhow::{Context as _, Result};
use edgerunner_tests::{Engine, Options, Stack, eventually};

use crate::how_to::exec;
use crate::registry::Registry;

const IMAGE: &str = "acme/mirrored:latest";

/// A job's Engine pulls an image that has the name of one of Docker Hub.
async fn pull(stack: &Stack) -> Result<()> {
    let id = stack.at_work().await?;
    let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
    let own = format!("{runner}-dind");
    let (code, output) = exec(stack.containers.docker(), &own, &["docker", "pull", IMAGE]).await?;
    assert_eq!(code, 0, "{output}");
    stack.cancel(id).await
}

#[tokio::test]
async fn what_one_job_has_pulled_another_one_gets_although_the_origin_is_away() -> Result<()> {
    let origin = Registry::open().await?;
    origin.push("acme/mirrored").await?;
    let options = Options::default().dind().await?;
    // It is alive as long as `options`.
    let mirror = origin.mirror(Engine::shared().await?.gateway()).await?;
    let options = options.sidecar("DOCKER_REGISTRY_MIRRORS", &mirror.url());
    Stack::run(options, async |stack| -> Result<()> {
        pull(stack).await?;
        // It stores what it passes on a little later.
        eventually("the mirror has the image", async || {
            Ok((origin.blobs()? == mirror.blobs()?).then_some(()))
        })
        .await?;
        drop(origin);
        pull(stack).await
    })
    .await;
    Ok(())
}
