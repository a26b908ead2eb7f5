//! The answers of `docs/how-to.md`, as they are written there.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{InspectContainerOptions, TagImageOptions};
use edgerunner_sandbox::{Conclusion, Job, JobRequest, Step};
use edgerunner_testkit::containers::labelled;
use edgerunner_tests::{Engine, Options, RUNNER_IMAGE, Stack, eventually};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::documents::{answer, answers};
use crate::registry::Registry;
use crate::terminal::Terminal;

/// A job for a runner with these labels.
fn job(labels: &[&str]) -> JobRequest {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    JobRequest { labels, seconds: 0.1, ..JobRequest::default() }
}

/// A directory that the runner's user can enter.
fn directory() -> Result<TempDir> {
    let directory = TempDir::new()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Runs this script before each job, on the runner.
fn with_script(options: Options, directory: &Path, text: &str) -> Result<Options> {
    let script = directory.join("script.sh");
    fs::write(&script, text)?;
    Ok(options.sidecar("DOCKER_JOB_STARTED_SCRIPT", &script.display().to_string()))
}

/// Runs a job, and returns what its script wrote.
async fn log_of_a_job(stack: &Stack) -> Result<Job> {
    let id = stack.sandbox.queue_job(&job(&["self-hosted"]));
    let job = stack.completed(id).await?;
    ensure!(job.conclusion == Some(Conclusion::Success), "{job:?}");
    Ok(job)
}

/// Runs a command in a container. Returns its exit code and its output.
pub(crate) async fn exec(
    docker: &Docker,
    container: &str,
    command: &[&str],
) -> Result<(i64, String)> {
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..Default::default()
    };
    let id = docker.create_exec(container, options).await?.id;
    let started = docker.start_exec(&id, None::<StartExecOptions>).await?;
    let StartExecResults::Attached { output, .. } = started else { anyhow::bail!("detached") };
    let output: Vec<_> = output.try_collect().await?;
    let code = docker.inspect_exec(&id).await?.exit_code.context("it is still running")?;
    Ok((code, output.iter().map(ToString::to_string).collect()))
}

/// The effective user and capabilities of a program with the set-user-ID bit, such as `sudo`.
async fn setuid(options: Options) -> Result<(String, u64)> {
    let directory = directory()?;
    let program = directory.path().join("cat");
    fs::copy("/bin/cat", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let volume = format!("{}:/setuid:ro", directory.path().display());
    let options = options.sidecar("DOCKER_VOLUMES", &volume);
    let options = with_script(options, directory.path(), "/setuid/cat /proc/self/status")?;
    let log = Stack::run(options, async |stack| Ok(log_of_a_job(stack).await?.log)).await;
    let field = |name: &str| {
        let mut fields = log.iter().filter_map(|line| line.strip_prefix(name));
        fields.next().with_context(|| format!("no {name} in {log:?}"))
    };
    let user = field("Uid:")?.split_whitespace().nth(1).context("no effective user")?;
    Ok((user.to_owned(), u64::from_str_radix(field("CapEff:")?.trim(), 16)?))
}

#[tokio::test]
async fn a_job_gets_root_with_the_two_settings_for_sudo() -> Result<()> {
    /// `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER`, `CAP_SETGID` and `CAP_SETUID`.
    const FOR_PACKAGES: u64 = 0xcb;
    assert_eq!(setuid(Options::default()).await?, ("1001".to_owned(), 0));
    let settings = answer("a_job_gets_root_with_the_two_settings_for_sudo", "toml")?;
    let (user, capabilities) = setuid(Options::default().file(&settings)).await?;
    assert_eq!((&*user, capabilities & FOR_PACKAGES), ("0", FOR_PACKAGES), "{capabilities:x}");
    Ok(())
}

#[tokio::test]
async fn jobs_reach_the_pool_for_their_kind_of_machine() -> Result<()> {
    let answers = answers("jobs_reach_the_pool_for_their_kind_of_machine", "toml");
    assert_eq!(answers.len(), 2);
    for (settings, label, why) in [
        // Where the tests run, there may be a GPU.
        (answers[0].replace("gpus = 1", r#"devices = ["/dev/no-gpu"]"#), "gpu", "/dev/no-gpu"),
        (answers[1].clone(), "arm64", "ghcr.io/acme/runner-arm64:1"),
    ] {
        Stack::run(Options::default().file(&settings), async |stack| -> Result<()> {
            let special = stack.queue_for(label);
            let message = stack.waits_for(special, "back_off").await?;
            assert!(message.contains(why), "{message}");
            // These pools fail: jobs that do not name them are not affected.
            for labels in [&["self-hosted"][..], &["self-hosted", "linux"]] {
                let id = stack.sandbox.queue_job(&job(labels));
                stack.completed(id).await?;
            }
            stack.sandbox.cancel_job(special)?;
            Ok(())
        })
        .await;
    }
    Ok(())
}

#[tokio::test]
async fn a_cache_outlives_its_jobs() -> Result<()> {
    const TEST: &str = "a_cache_outlives_its_jobs";
    const SCRIPT: &str = r#"
        echo "packages in $npm_config_cache"
        if [ -e /cache/job ]; then read -r before < /cache/job; echo "after $before"; fi
        echo "$GITHUB_RUN_ID" > /cache/job
    "#;
    let directory = directory()?;
    let cache = directory.path().join("cache").display().to_string();
    let here = |text: String| text.replace("/srv/actions-cache", &cache);
    let mut terminal = Terminal::open(directory.path(), [])?;
    // The tests are root.
    terminal.type_in(&here(answer(TEST, "sh")?.replace("sudo ", ""))).await?;
    terminal.close().await?;
    let options = Options::default().file(&here(answer(TEST, "toml")?));
    let options = with_script(options, directory.path(), SCRIPT)?;
    Stack::run(options, async |stack| -> Result<()> {
        let first = log_of_a_job(stack).await?;
        assert_eq!(first.log, ["packages in /cache/npm"]);
        let second = log_of_a_job(stack).await?;
        assert_eq!(second.log[1], format!("after {}", first.run_id));
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn the_engine_of_a_runner_uses_the_mirror() -> Result<()> {
    let settings = answer("the_engine_of_a_runner_uses_the_mirror", "toml")?;
    let options = Options::default().dind().await?;
    Stack::run(options.file(&settings), async |stack| -> Result<()> {
        let id = stack.at_work().await?;
        let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
        let info = ["docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}"];
        let own = format!("{runner}-dind");
        let (code, mirrors) = exec(stack.containers.docker(), &own, &info).await?;
        assert_eq!(code, 0, "{mirrors}");
        assert!(mirrors.contains(r#"["http://172.17.0.1:5000/"]"#), "{mirrors}");
        stack.cancel(id).await
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn jobs_find_the_proxy_in_their_environment() -> Result<()> {
    let settings = answer("jobs_find_the_proxy_in_their_environment", "toml")?;
    let directory = directory()?;
    let options = Options::default().file(&settings);
    let script = r#"echo "$http_proxy $https_proxy $no_proxy""#;
    let options = with_script(options, directory.path(), script)?;
    Stack::run(options, async |stack| -> Result<()> {
        let proxy = "http://proxy.example.com:3128";
        let expected = format!("{proxy} {proxy} localhost,.example.com");
        assert_eq!(log_of_a_job(stack).await?.log, [expected]);
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn pools_of_several_sizes_run_the_jobs_that_name_them() -> Result<()> {
    let settings = answer("pools_of_several_sizes_run_the_jobs_that_name_them", "toml")?
        // Docker accepts no more CPUs than the machine has.
        .replace("cpus = 2.0", "cpus = 0.5")
        .replace("cpus = 8.0", "cpus = 1.0");
    Stack::run(Options::default().file(&settings), async |stack| -> Result<()> {
        for (labels, cpus, memory_mib) in [
            (&["self-hosted"][..], 0.5, 4096_u64),
            (&["self-hosted", "linux"], 0.5, 4096),
            (&["self-hosted", "large"], 1.0, 32768),
        ] {
            let request = JobRequest { steps: vec![Step::Limits], ..job(labels) };
            let id = stack.sandbox.queue_job(&request);
            let limits: Value = serde_json::from_str(&stack.log(id, 1).await?[0])?;
            assert_eq!(limits["cpus"], cpus, "{labels:?}");
            assert_eq!(limits["memory"], (memory_mib << 20).to_string(), "{labels:?}");
        }
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn jobs_choose_the_size_and_the_image_of_their_runners() -> Result<()> {
    let other = "edgerunner/sandbox-runner:other";
    let (repository, tag) = other.split_once(':').context("no tag")?;
    let tag = TagImageOptions { repo: Some(repository.into()), tag: Some(tag.into()) };
    let settings = answer("jobs_choose_the_size_and_the_image_of_their_runners", "toml")?
        // Docker accepts no more CPUs than the machine has.
        .replace("cpus = 2.0", "cpus = 0.5")
        .replace("ghcr.io/acme/runner:24.04", other);
    Stack::run(Options::default().file(&settings), async |stack| -> Result<()> {
        let docker = stack.containers.docker();
        docker.tag_image(RUNNER_IMAGE, Some(tag)).await?;
        let image = format!("image={other}");
        for (labels, cpus, memory_mib, image) in [
            (&["self-hosted"][..], 0.5, 4_096_u64, RUNNER_IMAGE),
            (&["self-hosted", "cpu=1", "linux"], 1.0, 4_096, RUNNER_IMAGE),
            (&["self-hosted", "memory_gib=2", &image], 0.5, 2_048, other),
            (&["self-hosted", "run=${{ github.run_id }}"], 0.5, 4_096, RUNNER_IMAGE),
        ] {
            let request = JobRequest { steps: vec![Step::Limits], seconds: 600.0, ..job(labels) };
            let id = stack.sandbox.queue_job(&request);
            let limits: Value = serde_json::from_str(&stack.log(id, 1).await?[0])?;
            assert_eq!(limits["cpus"], cpus, "{labels:?}");
            assert_eq!(limits["memory"], (memory_mib << 20).to_string(), "{labels:?}");
            let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
            let container =
                docker.inspect_container(&runner, None::<InspectContainerOptions>).await?;
            let found = container.config.and_then(|config| config.image);
            assert_eq!(found.as_deref(), Some(image), "{labels:?}");
            stack.cancel(id).await?;
        }
        let id = stack.sandbox.queue_job(&job(&["self-hosted", "cpu=64"]));
        let why = stack.waits_for(id, "label_parameter").await?;
        assert!(why.contains("write a whole number, cpu=1 to cpu=8"), "{why}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn the_registrys_password_pulls_the_image() -> Result<()> {
    let registry = Registry::start().await?;
    registry.push("acme/runner").await?;
    let image = registry.image("acme/runner");
    let directory = directory()?;
    let password = directory.path().join("registry_password");
    fs::write(&password, Registry::PASSWORD)?;
    let settings = answer("the_registrys_password_pulls_the_image", "toml")?
        .replace("registry.example.com", &registry.host())
        .replace("\"ci\"", &format!("\"{}\"", Registry::USERNAME))
        .replace("/run/secrets/registry_password", &password.display().to_string());
    let options = Options::default().file(&settings).sidecar("DOCKER_PULL_POLICY", "missing");
    Stack::run(options, async |stack| -> Result<()> {
        log_of_a_job(stack).await?;
        assert!(registry.is_pulled(&image).await);
        Ok(())
    })
    .await;
    registry.forget(&image).await
}

#[tokio::test]
async fn the_machine_never_runs_more_than_its_share() -> Result<()> {
    let settings = answer("the_machine_never_runs_more_than_its_share", "toml")?
        // Docker accepts no more CPUs than the machine has.
        .replace("cpus = 2.0", "cpus = 1.0");
    Stack::run(Options::default().file(&settings), async |stack| -> Result<()> {
        let jobs: Vec<u64> = (0..9).map(|_| stack.queue(600.0)).collect();
        let (last, first) = jobs.split_last().context("no jobs")?;
        for id in first {
            stack.in_progress(*id).await?;
        }
        stack.waits_for(*last, "global_max").await?;
        // A runner may have its job before Docker reports its container.
        eventually("eight containers have started", async || {
            Ok((stack.containers.started() == 8).then_some(()))
        })
        .await?;
        assert_eq!(stack.containers.peak(), 8);
        for id in jobs {
            stack.sandbox.cancel_job(id)?;
        }
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn cleaning_up_keeps_the_runners_image() -> Result<()> {
    let engine = Engine::new().await?;
    let commands = answer("cleaning_up_keeps_the_runners_image", "sh")?;
    let printed = on(&engine, &commands).await?;
    assert!(printed.contains("Images"), "{printed}");
    assert!(printed.contains("Total reclaimed space"), "{printed}");
    engine.client()?.inspect_image(RUNNER_IMAGE).await?;
    Ok(())
}

/// Types commands for this Engine into a terminal.
async fn on(engine: &Engine, commands: &str) -> Result<String> {
    let directory = directory()?;
    let environment = [("DOCKER_HOST".to_owned(), engine.host())];
    let mut terminal = Terminal::open(directory.path(), environment)?;
    let printed = terminal.type_in(commands).await?;
    terminal.close().await?;
    Ok(printed)
}

#[tokio::test]
async fn the_work_folder_can_be_in_memory() -> Result<()> {
    const SCRIPT: &str = r#"
        while read -r _ path type options _; do
            if [ "$path" = /home/runner/_work ]; then echo "$type $options"; fi
        done < /proc/mounts
        echo something > file
    "#;
    let directory = directory()?;
    let options = Options::default().file(&answer("the_work_folder_can_be_in_memory", "toml")?);
    let options = with_script(options, directory.path(), SCRIPT)?;
    Stack::run(options, async |stack| -> Result<()> {
        let log = log_of_a_job(stack).await?.log;
        let [mount] = &log[..] else { panic!("{log:?}") };
        assert!(mount.starts_with("tmpfs ") && mount.contains("size=4194304k"), "{mount}");
        assert!(!mount.contains("noexec"), "{mount}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn nothing_of_the_runners_is_left_after_uninstalling() -> Result<()> {
    let engine = Engine::new().await?;
    let docker = engine.client()?;
    for instance in ["edgerunner", "another"] {
        let labels: HashMap<_, _> =
            [("dev.edgerunner.instance".to_owned(), instance.to_owned())].into();
        let body = ContainerCreateBody {
            image: Some(RUNNER_IMAGE.to_owned()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        docker.create_container(None, body).await?;
        let volume = VolumeCreateRequest {
            name: Some(instance.to_owned()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        docker.create_volume(volume).await?;
        let network = NetworkCreateRequest {
            name: instance.to_owned(),
            labels: Some(labels),
            ..Default::default()
        };
        docker.create_network(network).await?;
    }
    let commands = answer("nothing_of_the_runners_is_left_after_uninstalling", "sh")?;
    on(&engine, &commands).await?;
    // Again, with nothing left.
    on(&engine, &commands).await?;
    for (instance, left) in [("edgerunner", 0), ("another", 1)] {
        let label = format!("dev.edgerunner.instance={instance}");
        assert_eq!(labelled(&docker, &label).await?.len(), left, "{instance}");
        assert_eq!(docker.inspect_volume(instance).await.is_ok(), left > 0, "{instance}");
        let network = docker.inspect_network(instance, None).await;
        assert_eq!(network.is_ok(), left > 0, "{instance}");
    }
    Ok(())
}
