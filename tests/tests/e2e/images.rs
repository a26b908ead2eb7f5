//! Pulling images.

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::Conclusion;
use edgerunner_tests::{Options, Stack, Swarm, eventually};

use crate::registry::Registry;

/// A sidecar that pulls its runners' image from this registry.
pub(crate) fn options(registry: &Registry, image: &str, password: &str) -> Options {
    let credentials = format!(
        "[[registries]]\nhost = \"{}\"\nusername = \"{}\"\npassword = \"{password}\"\n",
        registry.host(),
        Registry::USERNAME,
    );
    Options::default()
        .file(&credentials)
        .sidecar("DOCKER_RUNNER_IMAGE", image)
        .sidecar("DOCKER_PULL_POLICY", "missing")
}

async fn a_job_succeeds(stack: &Stack) -> Result<()> {
    let id = stack.queue(0.1);
    assert_eq!(stack.completed(id).await?.conclusion, Some(Conclusion::Success));
    Ok(())
}

#[tokio::test]
async fn an_image_is_pulled_with_the_credentials_of_its_registry() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("pulled").await.expect("it takes images");
    let image = registry.image("pulled:latest");
    assert!(!registry.is_pulled(&image).await);
    Stack::run(options(&registry, &image, Registry::PASSWORD), async |stack| {
        a_job_succeeds(stack).await?;
        assert!(!stack.sidecar.log()?.contains(Registry::PASSWORD));
        Ok(())
    })
    .await;
    registry.forget(&image).await.expect("it was pulled");
}

#[tokio::test]
async fn an_image_can_be_pinned_by_its_digest() {
    let registry = Registry::start().await.expect("a registry");
    let digest = registry.push("pinned").await.expect("it takes images");
    let image = registry.image(&format!("pinned@{digest}"));
    let options =
        options(&registry, &image, Registry::PASSWORD).sidecar("DOCKER_PULL_POLICY", "always");
    Stack::run(options, async |stack| a_job_succeeds(stack).await).await;
    registry.forget(&image).await.expect("it was pulled");
}

#[tokio::test]
async fn a_registry_that_refuses_pauses_the_pool_and_says_what_to_do() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("refused").await.expect("it takes images");
    let image = registry.image("refused:latest");
    let wrong = options(&registry, &image, "not-the-password");
    let without = Options::default()
        .sidecar("DOCKER_RUNNER_IMAGE", &image)
        .sidecar("DOCKER_PULL_POLICY", "missing");
    for (options, advice) in [
        (wrong, "username and password that [[registries]] has for it".to_owned()),
        (without, format!("write [[registries]] with host = \"{}\"", registry.host())),
    ] {
        Stack::run(options, async |stack| -> Result<()> {
            let id = stack.queue(0.1);
            let message = stack.waits_for(id, "back_off").await?;
            assert!(message.contains(&registry.host()), "{message}");
            assert!(message.contains(&advice), "{message}");
            let log = stack.sidecar.log()?;
            assert!(!log.contains("not-the-password"));
            // Each node of a Swarm pulls for itself, once a runner is placed there.
            if Swarm::from_environment()?.is_none() {
                assert_eq!(stack.launches(), 0);
                assert!(log.contains("its image is not available yet"));
            }
            stack.sandbox.cancel_job(id)?;
            Ok(())
        })
        .await;
    }
    assert!(!registry.is_pulled(&image).await);
}

#[tokio::test]
async fn a_pools_image_is_pulled_before_its_first_job() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("early").await.expect("it takes images");
    let image = registry.image("early:latest");
    Stack::run(options(&registry, &image, Registry::PASSWORD), async |stack| {
        eventually("the image is pulled", async || {
            Ok(registry.is_pulled(&image).await.then_some(()))
        })
        .await?;
        assert_eq!(stack.launches(), 0);
        Ok(())
    })
    .await;
    registry.forget(&image).await.expect("it was pulled");
}

#[tokio::test]
async fn a_tag_that_moved_brings_the_next_runner_its_new_image() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("moved").await.expect("it takes images");
    let old = registry.pull("moved:latest").await.expect("it has the image");
    let new = registry.move_tag("moved").await.expect("it takes another one");
    let image = registry.image("moved:latest");
    assert_eq!(registry.id(&image).await.expect("Docker answers"), Some(old));
    Stack::run(options(&registry, &image, Registry::PASSWORD), async |stack| {
        eventually("the image is refreshed", async || {
            Ok((registry.id(&image).await? == Some(new.clone())).then_some(()))
        })
        .await?;
        let id = stack.at_work().await?;
        let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
        let image = stack.containers.inspect(&runner).await?.0.image;
        ensure!(image.as_ref() == Some(&new), "{image:?} in place of {new}");
        eventually("the version is shown", async || {
            let pools = stack.sidecar.print(&["pools"]).await?;
            Ok((pools.contains("VERSION") && pools.contains("2.335.0")).then_some(()))
        })
        .await?;
        let metrics = stack.sidecar.metrics().await?;
        let ends =
            "edgerunner_runner_version_end_timestamp_seconds{pool=\"default\",version=\"2.335.0\"}";
        ensure!(metrics.contains(ends), "{metrics}");
        stack.cancel(id).await
    })
    .await;
    registry.forget(&image).await.expect("it was pulled");
}

#[tokio::test]
async fn a_runner_that_github_refuses_as_too_old_brings_the_next_one_its_new_image() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("too-old").await.expect("it takes images");
    registry.pull("too-old:latest").await.expect("it has the image");
    let image = registry.image("too-old:latest");
    // As the runner exits whose version is no longer accepted.
    let command = "/usr/bin/sh,-c,[ \"$MOVED\" = yes ] || exit 7; exec /home/runner/run.sh";
    let options = options(&registry, &image, Registry::PASSWORD).sidecar("DOCKER_COMMAND", command);
    Stack::run(options, async |stack| {
        let counted = |outcome: &str| {
            format!("edgerunner_image_refreshes_total{{pool=\"default\",outcome=\"{outcome}\"}} 1")
        };
        let is_counted = async |outcome: &str| -> Result<Option<()>> {
            Ok(stack.sidecar.metrics().await?.contains(&counted(outcome)).then_some(()))
        };
        // Until the next day, only a runner that exits asks for the tag again.
        eventually("the tag is where it was", async || is_counted("unchanged").await).await?;
        registry.move_tag("too-old").await?;
        a_job_succeeds(stack).await?;
        eventually("the tag has moved", async || is_counted("updated").await).await?;
        let logged = ["its runner is too old: the next launch pulls the image"];
        ensure!(stack.sidecar.log_lines(&logged)? == 1, "pulled by another way");
        Ok(())
    })
    .await;
    registry.forget(&image).await.expect("it was pulled");
}
