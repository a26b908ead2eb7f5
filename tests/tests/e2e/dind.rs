//! Jobs that start containers.

use anyhow::{Context as _, Result};
use bollard::query_parameters::RemoveContainerOptions;
use edgerunner_sandbox::{JobRequest, Step};
use edgerunner_tests::{Options, Stack, eventually};
use serde_json::{Value, json};

use crate::machine::is_named_so;

/// A job that starts a container, and runs until it is cancelled.
fn queue(stack: &Stack) -> u64 {
    let steps = vec![Step::Container];
    stack.sandbox.queue_job(&JobRequest { steps, seconds: 600.0, ..JobRequest::default() })
}

/// The step's output: the answers of the job's container, and the containers that the job
/// sees.
async fn output(stack: &Stack, id: u64) -> Result<Value> {
    Ok(serde_json::from_str(&stack.log(id, 1).await?[0])?)
}

/// Checks that the job's container is the only one, has read the work folder, and serves
/// the result at the port that it publishes.
async fn is_alone(stack: &Stack, id: u64) -> Result<()> {
    let output = output(stack, id).await?;
    let name = output["container"].as_str().context("no name")?;
    assert_eq!(
        (&output["answer"], &output["heard"]),
        (&json!(format!("{name}, seen")), &json!(name))
    );
    assert_eq!(output["containers"], json!([format!("/{name}")]));
    Ok(())
}

/// Each runner has its own Engine.
async fn with_engines(test: impl AsyncFnOnce(&mut Stack) -> Result<()>) {
    let options = Options::default().dind().await.expect("an Engine");
    Stack::run(options, test).await;
}

#[tokio::test]
async fn a_jobs_container_shares_its_work_folder_and_nothing_with_other_jobs() {
    with_engines(async |stack| {
        let one = queue(stack);
        is_alone(stack, one).await?;
        // The first job's container runs while the second job lists containers.
        let other = queue(stack);
        is_alone(stack, other).await?;
        assert_eq!(stack.containers.running().await?.len(), 4);
        stack.cancel(one).await?;
        stack.cancel(other).await
    })
    .await;
}

/// The limit applies to the runner and to its Engine separately, and the job's container has none.
#[tokio::test]
async fn a_runner_whose_engine_lacked_memory_is_named_so() {
    let options = Options::default().dind().await.expect("an Engine");
    let options = options.sidecar("DOCKER_MEMORY_MIB", "512");
    Stack::run(options, async |stack| -> Result<()> {
        let steps = vec![Step::TakeMemory];
        let job = JobRequest { steps, seconds: 0.1, ..JobRequest::default() };
        let id = stack.sandbox.queue_job(&job);
        assert_eq!(output(stack, id).await?, json!({ "exit_code": 137 }));
        stack.completed(id).await?;
        is_named_so(stack).await
    })
    .await;
}

#[tokio::test]
async fn a_kill_during_a_launch_leaves_nothing_of_its_engine() {
    with_engines(async |stack| {
        let id = queue(stack);
        let begun = eventually("an Engine is running, and no runner yet", async || {
            let containers = stack.containers.list().await?;
            Ok(containers.into_iter().find_map(|container| container.names))
        })
        .await?;
        stack.sidecar.kill().await?;
        assert!(begun[0].ends_with("-dind"), "{begun:?}");
        assert_eq!(stack.containers.list().await?.len(), 1);

        stack.sidecar.start().await?;
        is_alone(stack, id).await?;
        stack.cancel(id).await
    })
    .await;
}

#[tokio::test]
async fn a_kill_during_a_job_leaves_its_engine_running() {
    with_engines(async |stack| {
        let id = queue(stack);
        is_alone(stack, id).await?;
        stack.busy(id).await?;
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        stack.busy(id).await?;
        assert_eq!(stack.containers.running().await?.len(), 2);
        stack.cancel(id).await
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_does_not_start_is_reported_and_removed() {
    let settings = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(settings.path(), r#"{"no-such-setting": true}"#).expect("it is ours");
    let volume = format!("{}:/etc/docker/daemon.json", settings.path().display());
    let options = Options::default().dind().await.expect("an Engine");
    let options = options.sidecar("DOCKER_VOLUMES", &volume);
    Stack::run(options, async |stack| -> Result<()> {
        let id = queue(stack);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("its log ends with: "), "{message}");
        assert!(message.contains("no-such-setting"), "{message}");
        stack.sandbox.cancel_job(id)?;
        stack.settled().await
    })
    .await;
}

#[tokio::test]
async fn an_argument_that_the_engine_does_not_know_is_reported_in_its_own_words() {
    let options = Options::default().dind().await.expect("an Engine");
    let options = options.sidecar("DOCKER_DIND_ARGS", "--no-such-argument=1");
    Stack::run(options, async |stack| -> Result<()> {
        let id = queue(stack);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("unknown flag: --no-such-argument"), "{message}");
        stack.sandbox.cancel_job(id)?;
        stack.settled().await
    })
    .await;
}

/// Jobs and their containers must then have the same path for the work folder.
#[tokio::test]
async fn the_hosts_own_engine_can_be_used_by_jobs() {
    let work = tempfile::TempDir::new().expect("a directory");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(work.path(), permissions).expect("it is ours");
    let path = work.path().display().to_string();
    let options = Options::default().shared_engine().await.expect("an Engine");
    let options = options
        .sidecar("DOCKER_DOCKER", "socket")
        .sidecar("DOCKER_VOLUMES", &format!("{path}:{path}"))
        .sidecar("RUNNER_WORK_FOLDER", &path);
    Stack::run(options, async |stack| -> Result<()> {
        let id = queue(stack);
        let output = output(stack, id).await?;
        let name = output["container"].as_str().context("no name")?;
        assert_eq!(output["answer"], format!("{name}, seen"));
        let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
        let all = output["containers"].as_array().context("no list")?;
        assert!(all.contains(&json!(format!("/{runner}"))), "{all:?}");
        // A job has to remove its own containers on the host.
        let options = RemoveContainerOptions { force: true, ..Default::default() };
        let (_, docker) = stack.containers.inspect(&runner).await?;
        docker.remove_container(name, Some(options)).await?;
        stack.cancel(id).await
    })
    .await;
}
