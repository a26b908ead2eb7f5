//! The settings of runner containers, seen from inside.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use edgerunner_sandbox::{Conclusion, Job, JobRequest, Step};
use edgerunner_tests::{Options, Stack};
use serde_json::{Value, json};
use tempfile::TempDir;

#[tokio::test]
async fn limits_hold_inside_the_container() {
    let options = Options::default().file("docker.log_options = { max-size = \"1m\" }");
    limits_hold(options, async |stack, id| {
        let log = inspect(stack, id).await?.host_config.and_then(|host| host.log_config);
        assert_eq!(log.and_then(|log| log.config).context("no options")?["max-size"], "1m");
        Ok(())
    })
    .await;
}

/// `more` checks the container of a job that runs.
pub(crate) async fn limits_hold(
    options: Options,
    more: impl AsyncFnOnce(&Stack, u64) -> Result<()>,
) {
    let options = options
        .sidecar("DOCKER_CPUS", "1.5")
        .sidecar("DOCKER_MEMORY_MIB", "256")
        .sidecar("DOCKER_PIDS", "99")
        .sidecar("DOCKER_SHM_MIB", "32")
        .sidecar("DOCKER_ULIMITS", "nofile=512:1024,nproc=4096:4096")
        .sidecar("DOCKER_USER", "1002:1002");
    Stack::run(options, async |stack| -> Result<()> {
        let steps = vec![Step::Limits];
        let request = JobRequest { steps, seconds: 600.0, ..JobRequest::default() };
        let id = stack.sandbox.queue_job(&request);
        let limits: Value = serde_json::from_str(&stack.log(id, 1).await?[0])?;
        let expected = json!({
            "cpus": 1.5,
            "memory": (256 << 20).to_string(),
            "pids": "99",
            "shm": "32768k",
            "open_files": ["512", "1024"],
            "user": "1002",
            "capabilities": "0000000000000000",
            "no_new_privileges": "1",
        });
        assert_eq!(limits, expected);
        more(stack, id).await?;
        stack.cancel(id).await
    })
    .await;
}

async fn inspect(stack: &Stack, id: u64) -> Result<bollard::models::ContainerInspectResponse> {
    let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
    Ok(stack.containers.inspect(&runner).await?.0)
}

/// Runs a job with these scripts before and after it.
async fn with_scripts(started: &str, completed: &str) -> Job {
    let directory = TempDir::new().expect("a directory");
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("it is ours");
        path.display().to_string()
    };
    let options = Options::default()
        .sidecar("DOCKER_JOB_STARTED_SCRIPT", &script("before.sh", started))
        .sidecar("DOCKER_JOB_COMPLETED_SCRIPT", &script("after.sh", completed));
    Stack::run(options, async |stack| {
        let steps = vec![Step::Limits];
        let request = JobRequest { steps, seconds: 0.1, ..JobRequest::default() };
        let id = stack.sandbox.queue_job(&request);
        stack.completed(id).await
    })
    .await
}

#[tokio::test]
async fn job_scripts_run_before_and_after_the_job_and_know_it() {
    let report = |when: &str| {
        format!(
            "echo \"{when} $GITHUB_REPOSITORY $GITHUB_RUN_ID $GITHUB_JOB $RUNNER_NAME $PWD $0\"\n"
        )
    };
    let job = with_scripts(&report("before"), &report("after")).await;
    assert_eq!(job.conclusion, Some(Conclusion::Success));
    let runner = job.runner.expect("a runner").runner_name;
    let expected_log = |when: &str, name: &str| {
        let (run, folder) = (job.run_id, "/home/runner/_work/app/app");
        format!("{when} acme/app {run} build {runner} {folder} /opt/edgerunner/{name}.sh")
    };
    let [before, step, after] = &job.log[..] else { panic!("{:?}", job.log) };
    assert_eq!(*before, expected_log("before", "job-started"));
    assert!(step.contains("memory"), "{step}");
    assert_eq!(*after, expected_log("after", "job-completed"));
}

#[tokio::test]
async fn a_job_script_that_fails_before_the_job_fails_it() {
    let job = with_scripts("echo no\nfalse\necho never", "echo after").await;
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    let [before, after] = &job.log[..] else { panic!("{:?}", job.log) };
    assert!(before.contains("no") && !before.contains("never"), "{before}");
    assert_eq!(after, "after");
}

/// The environment of a job's container.
async fn environment(options: Options) -> (BTreeMap<String, String>, Vec<String>) {
    let options = options.sidecar("RUNNER_LABELS", "self-hosted,linux,special");
    Stack::run(options, async |stack| -> Result<_> {
        let id = stack.at_work().await?;
        let environment = inspect(stack, id).await?.config.and_then(|config| config.env);
        let labels = stack.sandbox.runners().remove(0).labels;
        stack.cancel(id).await?;
        let environment = environment.unwrap_or_default();
        let pairs = environment.iter().filter_map(|line| line.split_once('='));
        Ok((pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), labels))
    })
    .await
}

/// As in <https://github.com/actions/runner> and its image.
#[tokio::test]
async fn a_jit_runner_finds_its_configuration_and_no_token() {
    let (environment, labels) = environment(Options::default()).await;
    assert!(environment.contains_key("ACTIONS_RUNNER_INPUT_JITCONFIG"), "{environment:?}");
    assert_eq!(environment["ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"], "1");
    assert!(!environment.contains_key("RUNNER_TOKEN"), "{environment:?}");
    assert_eq!(labels, ["self-hosted", "linux", "special"]);
}

/// As <https://github.com/myoung34/docker-github-actions-runner> documents its image.
#[tokio::test]
async fn a_runner_that_registers_itself_finds_what_its_image_reads() {
    for (scope, short, name, value) in [
        ("repository", "repo", "REPO_URL", "/acme/app"),
        ("organization", "org", "ORG_NAME", "acme"),
        ("enterprise", "ent", "ENTERPRISE_NAME", "acme-inc"),
    ] {
        let options = Options::default()
            .enterprise("acme-inc")
            .sidecar("RUNNER_CONTRACT", "registration-token")
            .sidecar("RUNNER_SCOPE", scope);
        let (environment, labels) = environment(options).await;
        assert!(environment[name].ends_with(value), "{environment:?}");
        for (name, value) in [
            ("RUNNER_SCOPE", short),
            ("LABELS", "self-hosted,linux,special"),
            ("NO_DEFAULT_LABELS", "true"),
            ("EPHEMERAL", "true"),
            ("DISABLE_AUTO_UPDATE", "true"),
            ("DISABLE_AUTOMATIC_DEREGISTRATION", "true"),
            ("UNSET_CONFIG_VARS", "true"),
            ("RUNNER_WORKDIR", "_work"),
        ] {
            assert_eq!(environment[name], value, "{environment:?}");
        }
        for name in ["RUNNER_TOKEN", "RUNNER_NAME", "GITHUB_HOST"] {
            assert!(!environment[name].is_empty(), "{environment:?}");
        }
        assert_eq!(labels, ["self-hosted", "linux", "special"]);
    }
}
