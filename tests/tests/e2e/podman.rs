//! Podman in Docker's place.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptions};
use edgerunner_tests::{Options, Podman, RUNNER_IMAGE, Stack, eventually};
use serde_json::Value;
use tokio::time::Instant;

use crate::documents::answer;
use crate::registry::Registry;
use crate::{containers, images, machine, sweep};

const SOCKET: &str = "unix:///run/podman/podman.sock";

/// More than any disk has.
const ALL_OF_THE_DISK: &str = "1073741824";

/// Without the event, a runner's end is noticed by the next list, up to 30 s later.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn podman_sets_limits_and_keeps_logs() {
    let podman = Podman::shared().await.expect("Podman");
    containers::limits_hold(Options::default().podman(&podman), async |_, _| Ok(())).await;
}

#[tokio::test]
async fn podman_removes_leftovers_of_our_runners_alone() {
    let podman = Podman::shared().await.expect("Podman");
    sweep::leftovers(Options::default().podman(&podman)).await;
}

#[tokio::test]
async fn the_end_of_a_runner_on_podman_is_noticed_at_once() {
    let podman = Podman::shared().await.expect("Podman");
    Stack::run(Options::default().podman(&podman), async |stack| -> Result<()> {
        let mut noticed = Vec::new();
        for _ in 0..3 {
            let job = stack.at_work().await?;
            let runner = stack.in_progress(job).await?.runner.context("no runner")?.runner_name;
            let docker = stack.containers.docker();
            docker.kill_container(&runner, None::<KillContainerOptions>).await?;
            let ended = Instant::now();
            eventually("the end is noticed", async || {
                let status = stack.sidecar.status().await?;
                let runners = status["runners"].as_array().context("no runners")?;
                let runs = |it: &Value| it["name"] == *runner && it["phase"] == "busy";
                Ok((!runners.iter().any(runs)).then_some(()))
            })
            .await?;
            noticed.push(ended.elapsed());
            stack.completed(job).await?;
        }
        // One of them may be late on a busy machine.
        noticed.sort_unstable();
        ensure!(noticed[1] < NOTICED_WITHIN, "{noticed:?}");
        stack.settled().await?;
        // The exit code, and what the runner has written.
        let runners = stack.sidecar.json(&["runners", "--all"]).await?;
        for runner in runners.as_array().context("no runners")? {
            assert_eq!(runner["why"], "exited with code 137 during its job", "{runner}");
        }
        let name = runners[0]["name"].as_str().context("no name")?;
        let log = stack.sidecar.print(&["runners", "logs", name]).await?;
        ensure!(!log.is_empty());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn runners_on_podman_are_adopted_and_outlive_its_service() {
    let mut podman = Podman::new().await.expect("Podman");
    let settings = answer("runners_on_podman_are_adopted_and_outlive_its_service", "toml");
    let settings = settings.expect("an answer");
    assert!(settings.contains(SOCKET), "{settings}");
    let options = Options::default()
        .podman(&podman)
        .sidecar("DOCKER_HOST", "")
        .file(&settings.replace(SOCKET, &podman.host()));
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.at_work().await?;
        stack.sidecar.kill().await?;
        podman.kill().await?;
        stack.sidecar.spawn()?;
        eventually("the sidecar waits for Podman", async || {
            Ok((stack.sidecar.get("/readyz").await?.status == 503).then_some(()))
        })
        .await?;
        podman.start().await?;
        stack.sidecar.ready().await?;
        stack.busy(job).await?;
        podman.kill().await?;
        let next = stack.queue(0.1);
        stack.waits_for(next, "back_off").await?;
        podman.start().await?;
        stack.completed(next).await?;
        stack.cancel(job).await?;
        stack.settled().await
    })
    .await;
}

#[tokio::test]
async fn a_busy_runner_on_podman_is_removed_by_force() {
    let podman = Podman::shared().await.expect("Podman");
    let options =
        Options::default().podman(&podman).sidecar("SERVER_API_TOKEN", "api-token-sesame");
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.at_work().await?;
        let runner = stack.in_progress(job).await?.runner.context("no runner")?.runner_name;
        stack.sidecar.print(&["runners", "remove", &runner, "--force"]).await?;
        stack.completed(job).await?;
        stack.settled().await
    })
    .await;
}

#[tokio::test]
async fn podman_loses_old_images_of_ours_alone_while_the_disk_is_full() {
    let registry = Registry::start().await.expect("a registry");
    let podman = Podman::with_registry(&registry.host()).await.expect("Podman");
    let [mut old, mut used, mut foreign] = [const { String::new() }; 3];
    for (name, id) in [("old", &mut old), ("used", &mut used), ("foreign", &mut foreign)] {
        *id = registry.push_large(name, 1).await.expect("it takes images");
    }
    let options = images::options(&registry, RUNNER_IMAGE, Registry::PASSWORD).podman(&podman);
    Stack::run(options, async |stack| -> Result<()> {
        let docker = podman.client()?;
        registry.pull_to(&docker, "foreign").await?;
        for name in ["used", "old"] {
            machine::own_image(stack, &registry.image(name)).await?;
        }
        let user = machine::use_image(&docker, &used).await?;

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("DOCKER_RUNNER_IMAGE", RUNNER_IMAGE);
        stack.sidecar.configure("DOCKER_RESERVE_DISK_MIB", ALL_OF_THE_DISK);
        stack.sidecar.start().await?;
        let id = stack.queue(0.1);
        stack.waits_for(id, "host_disk").await?;
        machine::is_removed(&docker, &old).await?;
        machine::are_there(&docker, &[&used, &foreign, RUNNER_IMAGE]).await?;

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("DOCKER_RESERVE_DISK_MIB", "0");
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        docker.remove_container(&user, None::<RemoveContainerOptions>).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn doctor_reports_what_podman_lacks() {
    let podman = Podman::shared().await.expect("Podman");
    let options = Options::default()
        .podman(&podman)
        .file("[[pools]]\nname = \"one\"\n[[pools]]\nname = \"two\"\nlog_driver = \"local\"\nlabels = [\"two\"]\n");
    Stack::run(options, async |stack| -> Result<()> {
        let output = stack.sidecar.run(&["doctor", "--json"]).await?;
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let found = |check: &str| {
            let found = findings.iter().find(|it| it["check"] == check);
            found.map(|it| (it["outcome"].clone(), it["message"].as_str().unwrap_or_default()))
        };
        let (outcome, version) = found("Docker").context("no Docker")?;
        assert_eq!((outcome, version.starts_with("Podman ")), ("ok".into(), true), "{version}");
        let (outcome, _) = found("pool one on Podman").context("no pool one")?;
        assert_eq!(outcome, "ok");
        let (outcome, problem) = found("pool two on Podman").context("no pool two")?;
        assert_eq!(outcome, "failed");
        assert!(problem.contains("it has no log_driver local: write k8s-file"), "{problem}");
        Ok(())
    })
    .await;
}
