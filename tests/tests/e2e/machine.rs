//! The memory and the disk of the machine that runners share.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};
use edgerunner_sandbox::Conclusion;
use edgerunner_tests::{Engine, Options, RUNNER_IMAGE, Stack, eventually, eventually_within};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::images;
use crate::registry::{self, Registry};

const DISK_MIB: u64 = 512;
const RESERVE_MIB: u64 = 128;
/// How much larger than the runner's image.
const IMAGE_MIB: usize = 32;
const UNUSED: &str = "exited with code 0 without a job";
const CHECKED_WITHIN: Duration = Duration::from_secs(60);

fn machine_memory_mib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no total")?;
    let kib: u64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib >> 10)
}

#[tokio::test]
async fn runners_whose_limits_are_more_than_the_machine_has_wait_for_each_other() {
    // Enough for one.
    let reserve = machine_memory_mib().expect("a machine") - 600;
    let options = Options::default()
        .sidecar("DOCKER_MEMORY_MIB", "400")
        .sidecar("DOCKER_RESERVE_MEMORY_MIB", &reserve.to_string());
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.at_work().await?;
        let second = stack.queue(0.1);
        let message = stack.waits_for(second, "host_memory").await?;
        assert!(message.starts_with("its runner may use 400 MiB of memory; free of"), "{message}");
        assert_eq!(stack.launches(), 1);
        let status = stack.sidecar.print(&["status"]).await?;
        assert!(status.contains("Docker's machine: 400 of "), "{status}");
        stack.cancel(first).await?;
        stack.completed(second).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_never_fits_is_named_by_doctor() {
    let reserve = machine_memory_mib().expect("a machine") - 300;
    let options = Options::default()
        .sidecar("DOCKER_MEMORY_MIB", "400")
        .sidecar("DOCKER_RESERVE_MEMORY_MIB", &reserve.to_string());
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "host_memory").await?;
        assert!(message.contains("lower memory_mib, or docker.reserve_memory_mib"), "{message}");
        let output = stack.sidecar.run(&["doctor", "--json"]).await?;
        let findings: Value = serde_json::from_slice(&output.stdout)?;
        let found = findings.as_array().context("a list")?.iter();
        let mut found = found.filter(|it| it["check"] == "room for pool default");
        let message = found.next().context("it was not checked")?["message"].as_str();
        assert!(message.is_some_and(|it| it.contains("each may use 400 MiB")), "{message:?}");
        stack.cancel(id).await
    })
    .await;
}

/// Of the only runner there was.
pub(crate) async fn is_named_so(stack: &Stack) -> Result<()> {
    let ends = eventually("the runner is gone", async || {
        Ok(Some(ends(stack).await?).filter(|ends| !ends.is_empty()))
    })
    .await?;
    ensure!(ends.len() == 1 && ends[0].contains("killed for lack of memory"), "{ends:?}");
    let metrics = stack.sidecar.metrics().await?;
    ensure!(metrics.contains("why=\"out_of_memory\"} 1"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_runner_that_lacked_memory_is_named_so() {
    let script = NamedTempFile::with_suffix(".sh").expect("a file");
    std::fs::write(script.path(), "text=x; while :; do text=$text$text; done\n")
        .expect("it can be written");
    let options = Options::default()
        .sidecar("DOCKER_MEMORY_MIB", "64")
        .sidecar("DOCKER_JOB_STARTED_SCRIPT", &script.path().display().to_string());
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        is_named_so(stack).await?;
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}

/// The reason why each runner that is gone was removed.
async fn ends(stack: &Stack) -> Result<Vec<String>> {
    let runners = stack.sidecar.print(&["runners", "--all", "--json"]).await?;
    let runners: Vec<Value> = serde_json::from_str(&runners)?;
    let gone = runners.iter().filter(|runner| runner["phase"] == "gone");
    Ok(gone.filter_map(|runner| runner["why"].as_str().map(str::to_owned)).collect())
}

/// Runs a job in a runner of an image that the sidecar pulls: then it is the sidecar's own.
pub(crate) async fn own_image(stack: &mut Stack, image: &str) -> Result<()> {
    stack.sidecar.terminate().await?;
    stack.sidecar.configure("DOCKER_RUNNER_IMAGE", image);
    stack.sidecar.start().await?;
    let id = stack.queue(0.1);
    assert_eq!(stack.completed(id).await?.conclusion, Some(Conclusion::Success));
    stack.settled().await
}

/// A container of somebody else, which is not started.
pub(crate) async fn use_image(docker: &Docker, image: &str) -> Result<String> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["/home/runner/run.sh".into()]),
        ..Default::default()
    };
    Ok(docker.create_container(None::<CreateContainerOptions>, body).await?.id)
}

/// Waits until an image is removed: disks are checked twice a minute.
pub(crate) async fn is_removed(docker: &Docker, image: &str) -> Result<()> {
    eventually_within(CHECKED_WITHIN, "the image is removed", async || {
        Ok(registry::id(docker, image).await?.is_none().then_some(()))
    })
    .await
}

pub(crate) async fn are_there(docker: &Docker, images: &[&str]) -> Result<()> {
    for image in images {
        ensure!(registry::id(docker, image).await?.is_some(), "{image} is gone");
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_that_fills_fails_nothing_and_loses_the_oldest_unused_image_of_ours() {
    let engine = Engine::with_disk(DISK_MIB).await.expect("an Engine");
    let registry = Registry::start().await.expect("a registry");
    let [mut first, mut second, mut third, mut foreign] = [const { String::new() }; 4];
    for (name, id) in [
        ("first", &mut first),
        ("second", &mut second),
        ("third", &mut third),
        ("foreign", &mut foreign),
    ] {
        *id = registry.push_large(name, IMAGE_MIB).await.expect("it takes images");
    }
    let options = images::options(&registry, RUNNER_IMAGE, Registry::PASSWORD)
        .engine(&engine)
        .sidecar("DOCKER_RESERVE_DISK_MIB", &RESERVE_MIB.to_string());
    // With this much, one of the images is enough.
    let nearly_full = RESERVE_MIB - IMAGE_MIB as u64 / 2;
    Stack::run(options, async |stack| -> Result<()> {
        let (docker, disk) = (engine.client()?, engine.disk());
        registry.pull_to(&docker, "foreign").await?;
        for name in ["first", "second", "third"] {
            own_image(stack, &registry.image(name)).await?;
        }
        own_image(stack, RUNNER_IMAGE).await?;
        are_there(&docker, &[&first, &second, &third]).await?;
        let long = stack.at_work().await?;

        disk.leave_free(nearly_full)?;
        is_removed(&docker, &first).await?;
        eventually("its space is free", async || {
            Ok((disk.free_mib()? >= RESERVE_MIB).then_some(()))
        })
        .await?;
        are_there(&docker, &[&second, &third, &foreign, RUNNER_IMAGE]).await?;
        let id = stack.queue(0.1);
        stack.completed(id).await?;

        // Nothing can go while it is in use.
        let users = [use_image(&docker, &second).await?, use_image(&docker, &third).await?];
        stack.sidecar.terminate().await?;
        disk.leave_free(nearly_full)?;
        stack.sidecar.start().await?;
        let launches = stack.launches();
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "host_disk").await?;
        assert!(message.contains("docker.reserve_disk_mib"), "{message}");
        assert_eq!(stack.launches(), launches);
        let [user, other] = users;
        docker.remove_container(&user, None::<RemoveContainerOptions>).await?;
        is_removed(&docker, &second).await?;
        stack.completed(id).await?;
        are_there(&docker, &[&third, &foreign, RUNNER_IMAGE]).await?;
        docker.remove_container(&other, None::<RemoveContainerOptions>).await?;

        ensure!(!stack.sidecar.log()?.contains("not all was removed"));
        stack.busy(long).await?;
        stack.cancel(long).await?;
        stack.settled().await?;
        eventually("all of them are done", async || {
            let ends = ends(stack).await?;
            // Events about a short job may arrive after its runner's exit.
            let done = |why: &String| why == "its job is done" || why == UNUSED;
            ensure!(ends.iter().all(done), "{ends:?}");
            Ok((ends.len() == stack.launches()).then_some(()))
        })
        .await
    })
    .await;
}
