//! Devices of the machine in runners.

use anyhow::{Result, ensure};
use edgerunner_sandbox::Conclusion;
use edgerunner_tests::{Options, Stack};
use tempfile::NamedTempFile;

use crate::documents::answer;

#[tokio::test]
async fn a_job_uses_the_devices_of_its_pool() -> Result<()> {
    const SCRIPT: &str = r#"
        echo lost >/dev/fuse && echo written
        [ -c /dev/kvm ] && echo there
    "#;
    let script = NamedTempFile::with_suffix(".sh")?;
    std::fs::write(script.path(), SCRIPT)?;
    let settings = answer("a_job_uses_the_devices_of_its_pool", "toml")?;
    // Every machine has these.
    let settings = settings
        .replace("/dev/kvm\"", "/dev/zero:/dev/kvm\"")
        .replace("/dev/fuse:", "/dev/null:/dev/fuse:");
    let script = script.path().display().to_string();
    let options = Options::default().file(&settings);
    Stack::run(
        options.sidecar("DOCKER_JOB_STARTED_SCRIPT", &script),
        async |stack| -> Result<()> {
            let job = stack.completed(stack.queue_for("kvm")).await?;
            ensure!(job.conclusion == Some(Conclusion::Success), "{job:?}");
            assert_eq!(job.log, ["written", "there"]);
            Ok(())
        },
    )
    .await;
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_not_there_pauses_the_pool_with_dockers_message() -> Result<()> {
    let options = Options::default().sidecar("DOCKER_DEVICES", "/dev/no-such-device");
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("/dev/no-such-device"), "{message}");
        stack.sandbox.cancel_job(id)?;
        stack.settled().await
    })
    .await;
    Ok(())
}
