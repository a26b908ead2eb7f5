//! Devices by their names in the Container Device Interface, on an Engine that knows it.

use anyhow::{Context as _, Result};
use edgerunner_tests::tools::swarm_programs;
use edgerunner_tests::{Cluster, Options, RUNNER_IMAGE, Stack};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Says which devices the runner has.
const SCRIPT: &str = r#"
for device in /dev/harmless-*; do echo lost >"$device" && echo "$device"; done
"#;

/// Harmless devices.
fn specification() -> Value {
    let device = |name: &str| {
        json!({
            "name": name,
            "containerEdits": { "deviceNodes": [{
                "path": format!("/dev/harmless-{name}"), "hostPath": "/dev/null", "type": "c",
                "major": 1, "minor": 3, "fileMode": 0o666, "permissions": "rw",
            }] },
        })
    };
    let devices = ["0", "1", "other"].map(device);
    json!({
        "cdiVersion": "0.5.0",
        "kind": "edgerunner.dev/gpu",
        "devices": devices,
    })
}

async fn devices(stack: &Stack, id: u64) -> Result<String> {
    Ok(stack.log(id, 1).await?.remove(0))
}

#[tokio::test]
async fn runners_get_devices_by_name_and_each_its_own_of_a_number() -> Result<()> {
    let cluster = Cluster::start(&swarm_programs()?, 1, 0, &[RUNNER_IMAGE]).await?;
    let node = &cluster.nodes[0];
    node.specify_devices(&specification())?;
    let script = NamedTempFile::with_suffix(".sh")?;
    std::fs::write(script.path(), SCRIPT)?;
    let on_node = || {
        let script = script.path().display().to_string();
        let options = Options::default().node(node, &cluster.swarm());
        options.sidecar("DOCKER_JOB_STARTED_SCRIPT", &script)
    };

    let named = on_node().sidecar("DOCKER_DEVICES", "edgerunner.dev/gpu=other");
    Stack::run(named, async |stack| -> Result<()> {
        let id = stack.queue(600.0);
        assert_eq!(devices(stack, id).await?, "/dev/harmless-other");
        stack.cancel(id).await
    })
    .await;

    let missing = on_node().sidecar("DOCKER_DEVICES", "edgerunner.dev/gpu=2");
    Stack::run(missing, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("edgerunner.dev/gpu=2"), "{message}");
        stack.sandbox.cancel_job(id)?;
        stack.settled().await
    })
    .await;

    let numbered = on_node()
        .sidecar("DOCKER_HOST_GPUS", "edgerunner.dev/gpu=0,edgerunner.dev/gpu=1")
        .sidecar("DOCKER_GPUS", "1");
    Stack::run(numbered, async |stack| -> Result<()> {
        let (one, other) = (stack.at_work().await?, stack.at_work().await?);
        let mut found = [devices(stack, one).await?, devices(stack, other).await?];
        let of_other = found[1].clone();
        found.sort_unstable();
        assert_eq!(found, ["/dev/harmless-0", "/dev/harmless-1"]);
        // Also to a process that did not launch the runners.
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        let third = stack.queue(600.0);
        let message = stack.waits_for(third, "host_devices").await?;
        let expected = "its runner needs 1 of the host's 2 devices for itself; free: 0";
        assert_eq!(message, expected);
        stack.cancel(other).await?;
        assert_eq!(devices(stack, third).await?, of_other);
        stack.cancel(one).await?;
        stack.cancel(third).await
    })
    .await;
    node.docker()?.ping().await.context("the Engine has died")?;
    Ok(())
}
