//! `edgerunner launch`, started as Docker Swarm starts it on a node, with tasks as they travel.

use std::collections::HashMap;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bollard::models::{ContainerCreateBody, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptionsBuilder, ListNetworksOptions, LogsOptions, RemoveContainerOptions,
    StartContainerOptions,
};
use edgerunner_testkit::json_log;
use edgerunner_tests::tools::dind_image;
use edgerunner_tests::{Containers, Engine, Programs, RUNNER_IMAGE, eventually};
use futures_util::{FutureExt as _, TryStreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

const NOTHING_STARTED: i32 = 70;
/// Values that must appear in no output.
const TOKEN: &str = "sesame-of-the-runner";
const PASSWORD: &str = "sesame-of-a-registry";

/// Runs until SIGUSR1, and ends with 7 then. Ignores SIGTERM, as the first process of a container
/// does without a handler.
const PATIENT: &str = "trap 'echo bye; exit 7' USR1; echo waiting > message; \
                       ./run.sh show . & echo token $TOKEN; wait";

/// For a launcher to end once nothing keeps it.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A machine of a Swarm, with what the launchers of one test make there.
struct Node {
    host: Option<String>,
    containers: Containers,
    directory: TempDir,
}

impl Node {
    /// Fails if anything is left in the end.
    async fn run(engine: Option<&Engine>, test: impl AsyncFnOnce(&Self) -> Result<()>) {
        let instance = format!("e2e-{}.swarm", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let host = engine.map(Engine::host);
        let containers = Containers::watch(host.as_deref(), &instance).expect("Docker answers");
        let directory = TempDir::new().expect("a directory");
        let node = Self { host, containers, directory };
        let tested = AssertUnwindSafe(async {
            test(&node).await?;
            ensure!(node.containers.list().await?.is_empty(), "a container is left");
            node.containers.nothing_else_is_left().await
        })
        .catch_unwind()
        .await;
        let removed = node.remove_all().await;
        match tested {
            Ok(result) => result.expect("the test"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        removed.expect("Docker removes everything");
    }

    /// Removes what a test may have left.
    async fn remove_all(&self) -> Result<()> {
        let docker = self.containers.docker();
        let named = HashMap::from([("name", vec![self.name("")])]);
        let named = ListContainersOptionsBuilder::default().all(true).filters(&named).build();
        for container in docker.list_containers(Some(named)).await? {
            remove(docker, container.id.as_deref().context("no id")?).await?;
        }
        self.containers.remove_all().await?;
        Ok(())
    }

    fn labels(&self, runner: &str) -> Value {
        json!({
            "instance": self.containers.instance(),
            "pool": "default",
            "runner": runner,
            "host": "github.com",
            "target": "org:acme",
            "launched_unix_ms": 1_700_000_000_000_u64,
        })
    }

    /// For a runner of this name on this node.
    fn name(&self, runner: &str) -> String {
        format!("{}-{runner}", self.containers.instance().trim_end_matches(".swarm"))
    }

    fn order(&self, runner: &str, script: &str) -> Value {
        json!({
            "labels": self.labels(runner),
            "images": {
                "names": [RUNNER_IMAGE],
                "platform": null,
                "pull_policy": "never",
                "logins": [
                    { "host": "registry.example.com", "username": "ci", "password": PASSWORD },
                ],
            },
            "image": RUNNER_IMAGE,
            "command": ["sh", "-c", script],
            "env": [{ "name": "TOKEN", "value": TOKEN }],
            "credentials_end": 4_000_000_000_000_u64,
            "scripts": [{
                "path": "/home/runner/hello.sh",
                "content": BASE64_STANDARD.encode("echo hello"),
            }],
            "work_folder": "_work",
            "engine": "none",
            "settings": {
                "shared": {
                    "cpus": null,
                    "memory_mib": 256,
                    "pids": 100,
                    "network": null,
                    "dns": [],
                    "extra_hosts": [],
                    "volumes": [],
                    "devices": [],
                    "gpus": [],
                    "log_driver": null,
                    "log_options": {},
                },
                "shm_mib": null,
                "ulimits": [],
                "user": null,
                "cap_drop": ["ALL"],
                "cap_add": [],
                "allow_new_privileges": false,
                "runtime": null,
                "tmpfs": [],
                "init": false,
            },
            "stop_grace": { "secs": 1, "nanos": 0 },
        })
    }

    fn start(&self, task: &Value) -> Result<Launcher> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let [order, reports, log] = ["order", "reports", "log"]
            .map(|name| self.directory.path().join(format!("{id}.{name}")));
        std::fs::write(&order, task.to_string())?;
        let programs = Programs::from_environment()?;
        let mut command = programs.command(&programs.sidecar);
        command.args(["launch", "--order"]).arg(&order);
        command.stdin(Stdio::null()).stdout(File::create(&reports)?).stderr(File::create(&log)?);
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        Ok(Launcher { child: command.kill_on_drop(true).spawn()?, reports, log })
    }

    /// Starts a patient runner, and waits until it handles signals.
    async fn start_patient(&self, order: Value) -> Result<Launcher> {
        let runner = order["labels"]["runner"].as_str().context("no name")?.to_owned();
        let launcher = self.start(&json!({ "run": order }))?;
        launcher.reported("started").await?;
        let options = LogsOptions { stdout: true, ..Default::default() };
        eventually("the runner is ready", async || {
            let log = self.containers.docker().logs(&runner, Some(options.clone()));
            let log: Vec<_> = log.try_collect().await?;
            Ok(log.iter().any(|line| line.to_string().contains(TOKEN)).then_some(()))
        })
        .await?;
        Ok(launcher)
    }

    /// Makes a patient runner end.
    async fn end(&self, runner: &str) -> Result<()> {
        let signal = KillContainerOptions { signal: "SIGUSR1".to_owned() };
        Ok(self.containers.docker().kill_container(runner, Some(signal)).await?)
    }

    async fn is_running(&self, container: &str) -> Result<bool> {
        let found =
            self.containers.docker().inspect_container(container, None::<InspectContainerOptions>);
        Ok(found.await?.state.and_then(|state| state.running) == Some(true))
    }

    /// Starts a container with these labels besides the name of its runner.
    async fn container(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let docker = self.containers.docker();
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let mut labels: HashMap<String, String> = labels.collect();
        labels.entry("dev.edgerunner.runner".to_owned()).or_insert(name.to_owned());
        let body = ContainerCreateBody {
            image: Some(RUNNER_IMAGE.to_owned()),
            cmd: Some(["sh", "-c", PATIENT].map(str::to_owned).into()),
            labels: Some(labels),
            ..Default::default()
        };
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        docker.create_container(Some(options), body).await?;
        Ok(docker.start_container(name, None::<StartContainerOptions>).await?)
    }
}

struct Launcher {
    child: Child,
    reports: PathBuf,
    log: PathBuf,
}

impl Launcher {
    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(id.context("it has ended")?, signal)?)
    }

    /// The lines on its standard output.
    fn reports(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.reports)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    async fn reported(&self, event: &str) -> Result<Value> {
        let found = eventually("the launcher reports", async || {
            Ok(self.reports()?.into_iter().find(|report| report["event"] == event))
        })
        .await;
        found.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Waits for its end, and returns its exit code and all reports.
    async fn ended(mut self) -> Result<(i32, Vec<Value>)> {
        let status = timeout(END_LIMIT, self.child.wait()).await;
        let log = std::fs::read_to_string(&self.log)?;
        let status = status.with_context(|| format!("the launcher still runs:\n{log}"))??;
        let printed = format!("{}{log}", std::fs::read_to_string(&self.reports)?);
        ensure!(!printed.contains("sesame"), "a secret was printed:\n{printed}");
        json_log::check(&log)?;
        let code = status.code().with_context(|| format!("{status}\n{log}"))?;
        Ok((code, self.reports()?))
    }
}

fn ended(exit_code: impl Into<Option<i32>>, log: &str) -> Value {
    let exit_code = exit_code.into();
    json!({ "event": "ended", "exit_code": exit_code, "out_of_memory": false, "log": log })
}

#[tokio::test]
async fn a_runner_runs_to_its_end_and_is_removed() {
    Node::run(None, async |node| {
        let order = node.order(&node.name("1"), "sh ./hello.sh; echo token $TOKEN; exit 3");
        let (code, reports) = node.start(&json!({ "run": order }))?.ended().await?;
        assert_eq!(code, 0);
        let [started, end] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!(started["event"], "started");
        assert_eq!(started["container"].as_str().context("no container")?.len(), 12);
        assert_eq!(*end, ended(3, "hello\ntoken ***\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_a_runner_that_does_not_start() {
    Node::run(None, async |node| {
        let mut without_image = node.order(&node.name("1"), PATIENT);
        without_image["images"]["names"] = json!(["edgerunner/no-such-image:local"]);
        let mut without_command = node.order(&node.name("2"), PATIENT);
        without_command["command"] = json!(["/no-such-command"]);
        for (order, kind) in [(without_image, "image"), (without_command, "refused")] {
            let (code, reports) = node.start(&json!({ "run": order }))?.ended().await?;
            assert_eq!(code, NOTHING_STARTED, "{reports:?}");
            let [failed] = &reports[..] else { panic!("{reports:?}") };
            assert_eq!(failed["event"], "failed");
            assert_eq!(failed["kind"], kind, "{failed}");
            let message = failed["message"].as_str().context("no message")?;
            assert!(message.contains("no-such-"), "{message}");
            assert!(node.containers.list().await?.is_empty());
        }
        let (code, reports) = node.start(&json!({ "run": {} }))?.ended().await?;
        assert_eq!((code, &reports[0]["event"]), (NOTHING_STARTED, &json!("failed")));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_ignores_sigterm_ends_within_its_grace_and_with_its_launcher() {
    Node::run(None, async |node| {
        let runner = node.name("1");
        let launcher = node.start_patient(node.order(&runner, PATIENT)).await?;
        launcher.signal(Signal::TERM)?;
        let begun = Instant::now();
        let (code, reports) = launcher.ended().await?;
        // One second of grace, and what Docker needs to kill and remove.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(code, 0);
        assert_eq!(reports[1], ended(137, "token ***\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_second_start_of_an_order_is_refused_and_does_not_harm_the_first() {
    Node::run(None, async |node| {
        let runner = node.name("1");
        let order = node.order(&runner, PATIENT);
        let first = node.start_patient(order.clone()).await?;

        let (code, reports) = node.start(&json!({ "run": order }))?.ended().await?;
        assert_eq!(code, 0);
        let [refused] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!(refused["event"], "refused");
        assert!(node.is_running(&runner).await?);

        node.end(&runner).await?;
        let (code, reports) = first.ended().await?;
        assert_eq!((code, &reports[1]), (0, &ended(7, "token ***\nbye\n")));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_outlives_a_launcher_that_is_killed_and_another_one_attends_it() {
    Node::run(None, async |node| {
        let runner = node.name("1");
        let first = node.start_patient(node.order(&runner, PATIENT)).await?;
        first.signal(Signal::KILL)?;
        assert!(first.ended().await.is_err(), "it has no exit code");

        let attend = json!({
            "attend": { "labels": node.labels(&runner), "stop_grace": { "secs": 1, "nanos": 0 } },
        });
        let other = node.start(&attend)?;
        let instance = node.containers.instance();
        let log = json!({ "log": { "instance": instance, "runner": runner, "lines": 10 } });
        let (code, reports) = node.start(&log)?.ended().await?;
        assert_eq!((code, reports), (0, vec![json!({ "event": "log", "log": "token ***\n" })]));

        node.end(&runner).await?;
        let end = ended(7, "token ***\nbye\n");
        assert_eq!(other.ended().await?, (0, vec![end]));

        // Nothing is left to attend.
        let gone = ended(None, "");
        assert_eq!(node.start(&attend)?.ended().await?, (0, vec![gone]));
        let (code, reports) = node.start(&log)?.ended().await?;
        assert_eq!(
            (code, &reports[0]["event"], &reports[0]["kind"]),
            (0, &json!("failed"), &json!("gone"))
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_may_use_the_nodes_engine_gets_its_socket_and_group() {
    Node::run(None, async |node| {
        let runner = node.name("1");
        let mut order = node.order(&runner, PATIENT);
        order["engine"] = json!("socket");
        let launcher = node.start_patient(order).await?;
        let found = node.containers.docker();
        let found = found.inspect_container(&runner, None::<InspectContainerOptions>).await?;
        let host = found.host_config.context("no host configuration")?;
        let socket = "/var/run/docker.sock";
        assert_eq!(host.binds.context("no binds")?, [format!("{socket}:{socket}")]);
        let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(socket)?);
        assert_eq!(host.group_add.context("no groups")?, [group.to_string()]);
        node.end(&runner).await?;
        assert_eq!(launcher.ended().await?.1[1]["exit_code"], 7);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runners_own_engine_ends_with_it() {
    let engine = Engine::shared().await.expect("an Engine");
    let image = dind_image().expect("an image");
    Node::run(Some(&engine), async |node| {
        for signal in [false, true] {
            let runner = node.name(if signal { "2" } else { "1" });
            let mut order = node.order(&runner, PATIENT);
            order["images"]["names"] = json!([RUNNER_IMAGE, image]);
            order["engine"] = json!({ "dind": {
                "image": image,
                "runtime": null,
                "registry_mirrors": [],
                "insecure_registries": [],
                "arguments": [],
            } });
            order["settings"]["shared"]["memory_mib"] = json!(null);
            order["settings"]["shared"]["pids"] = json!(null);
            let launcher = node.start_patient(order).await?;
            assert_eq!(node.containers.running().await?.len(), 2);
            match signal {
                true => launcher.signal(Signal::TERM)?,
                false => node.end(&runner).await?,
            }
            let (code, reports) = launcher.ended().await?;
            assert_eq!((code, &reports[1]["event"]), (0, &json!("ended")));
            assert_eq!(reports[1]["exit_code"], if signal { 137 } else { 7 });
            assert!(node.containers.list().await?.is_empty());
            node.containers.nothing_else_is_left().await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_launcher_waits_for_an_engine_that_restarts() {
    let mut engine = Engine::new().await.expect("an Engine");
    let instance = format!("e2e-{}.swarm", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let containers =
        Containers::watch(Some(&engine.host()), &instance).expect("the Engine answers");
    let directory = TempDir::new().expect("a directory");
    let node = Node { host: Some(engine.host()), containers, directory };
    let script = format!("trap 'exit 5' TERM; {PATIENT}");
    let order = node.order(&node.name("1"), &script);
    let launcher = node.start_patient(order).await.expect("a runner");
    engine.stop().await.expect("it ends, and its containers with it");
    engine.start().await.expect("it starts");
    let (code, reports) = launcher.ended().await.expect("the launcher ends");
    assert_eq!(
        (code, &reports[1]["event"], &reports[1]["exit_code"]),
        (0, &json!("ended"), &json!(5))
    );
    assert!(node.containers.list().await.expect("the Engine answers").is_empty());
}

#[tokio::test]
async fn a_sweep_spares_what_may_be_alive() {
    Node::run(None, async |node| {
        let ours = node.containers.instance();
        let others = format!("{ours}-2");
        let (instance, launched) = ("dev.edgerunner.instance", "dev.edgerunner.launched");
        let old = [(instance, ours), (launched, "1000000")];
        let new = [(instance, ours), (launched, "1040000")];
        let [alive, recent, attended, launcher, foreign, unknown] =
            ["alive", "recent", "attended", "launcher", "foreign", "unknown"]
                .map(|name| node.name(name));
        node.container(&alive, &old).await?;
        node.container(&recent, &new).await?;
        node.container(&attended, &old).await?;
        let labels = [("dev.edgerunner.launcher", ours), ("dev.edgerunner.runner", &attended)];
        node.container(&launcher, &labels).await?;
        node.container(&foreign, &[(instance, &others), (launched, "1000000")]).await?;
        node.container(&unknown, &old).await?;
        let docker = node.containers.docker();
        for runner in [&alive, &attended, &unknown, &node.name("gone")] {
            let labels = [(instance, ours), ("dev.edgerunner.runner", runner)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let network = NetworkCreateRequest {
                name: runner.clone(),
                labels: Some(labels.into()),
                ..Default::default()
            };
            docker.create_network(network).await?;
        }

        let sweep = json!({
            "sweep": { "instance": ours, "alive": [alive], "taken_at_unix_ms": 1_100_000 },
        });
        let (code, reports) = node.start(&sweep)?.ended().await?;
        // The unknown container, its network, and that of a runner without a container.
        let swept = json!({ "event": "swept", "removed": 3, "failed": [] });
        assert_eq!((code, reports), (0, vec![swept]));
        for spared in [&alive, &recent, &attended, &launcher, &foreign] {
            assert!(node.is_running(spared).await?, "{spared}");
        }
        assert!(node.is_running(&unknown).await.is_err());
        let networks = docker.list_networks(None::<ListNetworksOptions>).await?;
        let mut networks: Vec<String> =
            networks.into_iter().filter_map(|network| network.name).collect();
        networks.retain(|name| name.starts_with(&node.name("")));
        networks.sort();
        assert_eq!(networks, [alive.clone(), attended.clone()]);

        for container in [&alive, &recent, &attended, &launcher, &foreign] {
            remove(docker, container).await?;
        }
        for network in networks {
            docker.remove_network(&network).await?;
        }
        Ok(())
    })
    .await;
}

async fn remove(docker: &bollard::Docker, container: &str) -> Result<()> {
    let force = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    Ok(docker.remove_container(container, Some(force)).await?)
}
