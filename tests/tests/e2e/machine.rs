//! The memory and the disk of the machine that runners share.

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::RemoveImageOptions;
use edgerunner_sandbox::Conclusion;
use edgerunner_tests::{Options, RUNNER_IMAGE, Stack, eventually};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::registry::Registry;

/// More than any disk has.
const ALL_OF_THE_DISK: &str = "1073741824";

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
        let why = eventually("the runner is gone", async || {
            let runners = stack.sidecar.json(&["runners", "--all"]).await?;
            let gone = runners[0]["phase"] == "gone";
            Ok(runners[0]["why"].as_str().filter(|_| gone).map(str::to_owned))
        })
        .await?;
        assert!(why.contains("killed for lack of memory"), "{why}");
        let metrics = stack.sidecar.metrics().await?;
        ensure!(metrics.contains("why=\"out_of_memory\"} 1"), "{metrics}");
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_jobs_wait_and_images_of_ours_go() {
    let registry = Registry::start().await.expect("a registry");
    registry.push("own").await.expect("it takes images");
    registry.pull("own:latest").await.expect("it has the image");
    let moved = registry.move_tag("own").await.expect("the tag moves");
    let image = registry.image("own:latest");
    let credentials = format!(
        "[[registries]]\nhost = \"{}\"\nusername = \"{}\"\npassword = \"{}\"\n",
        registry.host(),
        Registry::USERNAME,
        Registry::PASSWORD,
    );
    let options = Options::default()
        .file(&credentials)
        .sidecar("DOCKER_RUNNER_IMAGE", &image)
        .sidecar("DOCKER_PULL_POLICY", "always");
    Stack::run(options, async |stack| -> Result<()> {
        let docker = stack.containers.docker();
        // Only the sidecar brings it back.
        docker.remove_image(&moved, None::<RemoveImageOptions>, None).await?;
        let id = stack.queue(0.1);
        assert_eq!(stack.completed(id).await?.conclusion, Some(Conclusion::Success));
        stack.settled().await?;
        assert!(registry.id(&moved).await?.is_some());

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("DOCKER_RUNNER_IMAGE", RUNNER_IMAGE);
        stack.sidecar.configure("DOCKER_PULL_POLICY", "never");
        stack.sidecar.configure("DOCKER_RESERVE_DISK_MIB", ALL_OF_THE_DISK);
        stack.sidecar.start().await?;
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "host_disk").await?;
        assert!(message.contains("docker.reserve_disk_mib"), "{message}");
        eventually("the image is gone", async || {
            Ok(registry.id(&moved).await?.is_none().then_some(()))
        })
        .await?;
        // Nobody pulled that one.
        assert!(registry.id(RUNNER_IMAGE).await?.is_some());
        assert_eq!(stack.launches(), 1);

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("DOCKER_RESERVE_DISK_MIB", "0");
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}
