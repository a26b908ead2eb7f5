//! A real cluster of Kubernetes: one job, many jobs, and faults. The sidecar has the permissions of
//! `packaging/kubernetes/runners.yaml`, and no others.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use edgerunner_sandbox::{Conclusion, JobRequest};
use edgerunner_testkit::control_plane::Kubernetes;
use edgerunner_tests::{Options, Programs, Stack, eventually, eventually_within};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::account::Account;
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;
const KILLS: usize = 20;
const MANY_JOBS: u32 = 500;
const MANY_MAX: usize = 100;
/// The most jobs at the same time while the sidecar is killed.
const JOBS_MAX: usize = 2 * MAX;
/// Kubernetes gives up a node after 40 s, and its pods after 300 s more, by default.
const LOST_LIMIT: Duration = Duration::from_secs(400);
/// For [`MANY_JOBS`] on a small machine.
const MANY_LIMIT: Duration = Duration::from_secs(1800);
/// Longer than it takes Kubernetes to give up a node.
const LONG_JOB_SECONDS: f64 = 90.0;

/// Becomes the sidecar `$SIDECAR`, which finds `$ACCOUNT` where a pod has its service account.
const IN_POD: &str = r#"#!/bin/sh
exec unshare --mount sh -c '
mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io &&
ln -s "$ACCOUNT" /run/secrets/kubernetes.io/serviceaccount && exec "$SIDECAR" "$@"' sh "$@"
"#;

/// Scenarios share the nodes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A namespace for runners, with everything else of a stack.
struct Runners<'a> {
    cluster: &'a Kubernetes,
    /// The namespace's.
    name: &'a str,
    stack: &'a mut Stack,
}

impl Runners<'_> {
    async fn pods(&self) -> Result<Vec<Value>> {
        self.cluster.list(&format!("pods --namespace={}", self.name)).await
    }

    /// The pod of the runner that runs this job.
    async fn pod_of(&self, job: u64) -> Result<Value> {
        let job = self.stack.sandbox.job(job).context("no such job")?;
        let runner = job.runner.context("no runner")?.runner_name;
        let pods = self.pods().await?;
        let mut pods = pods.into_iter().filter(|pod| pod["metadata"]["name"] == *runner);
        pods.next().with_context(|| format!("{runner} has no pod"))
    }

    async fn kubectl(&self, arguments: &str) -> Result<String> {
        self.cluster.kubectl(&format!("--namespace={} {arguments}", self.name)).await
    }

    /// Waits until neither a pod nor a secret of a runner is left.
    async fn nothing_is_left(&self) -> Result<()> {
        eventually_within(LOST_LIMIT, "nothing is left in the cluster", async || {
            let selector = "--selector=dev.edgerunner.instance --output=name";
            let left = self.kubectl(&format!("get pods,secrets {selector}")).await?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(Some(()))
        })
        .await
    }

    /// The most pods at the same time, until it is dropped.
    async fn watch_peak(&self, peak: &mut usize) -> Result<Infallible> {
        loop {
            let pods = self.pods().await?;
            let live = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
            *peak = (*peak).max(live);
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Runs a scenario with a new namespace, and removes it.
async fn run(max: usize, test: impl AsyncFnOnce(&mut Runners<'_>) -> Result<Figures>) -> Figures {
    run_with(max, Options::default(), Credentials::File, test).await
}

/// Where the sidecar finds those of its service account.
enum Credentials {
    /// Where a container of a pod has them.
    OfPod,
    /// In a kubeconfig.
    File,
}

async fn run_with(
    max: usize,
    options: Options,
    credentials: Credentials,
    test: impl AsyncFnOnce(&mut Runners<'_>) -> Result<Figures>,
) -> Figures {
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Kubernetes::from_environment().expect("a cluster");
    let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    // Also the name of the owner of all pods.
    let name = format!("{instance}-runners");
    let directory = TempDir::new().expect("a directory");
    let kubeconfig = cluster.installation(&name).await.expect("a namespace");
    let options = match credentials {
        Credentials::OfPod => as_in_pod(options, &kubeconfig, directory.path()),
        Credentials::File => with_file(options, &kubeconfig, directory.path()),
    };
    let options = options
        .expect("credentials")
        .pods(&cluster)
        .sidecar("SCHEDULER_INSTANCE", &instance)
        .sidecar("RUNNER_MAX", &max.to_string());
    let figures = Stack::run(options, async |stack| {
        let mut runners = Runners { cluster: &cluster, name: &name, stack };
        let figures = test(&mut runners).await?;
        runners.nothing_is_left().await?;
        let launches = runners.stack.launches();
        Ok(Figures { launches, ..figures })
    })
    .await;
    let removed = cluster.kubectl(&format!("delete namespace {name} --wait=false")).await;
    removed.expect("the namespace can be removed");
    figures
}

fn with_file(options: Options, kubeconfig: &str, directory: &Path) -> Result<Options> {
    let file = directory.join("kubeconfig");
    std::fs::write(&file, kubeconfig)?;
    Ok(options.sidecar("KUBERNETES_KUBECONFIG", &file.display().to_string()))
}

fn as_in_pod(options: Options, kubeconfig: &str, directory: &Path) -> Result<Options> {
    let kubeconfig: Value = serde_json::from_str(kubeconfig)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let authority = BASE64_STANDARD.decode(text(&cluster["certificate-authority-data"]))?;
    let namespace = text(&kubeconfig["contexts"][0]["context"]["namespace"]);
    let files = [
        ("ca.crt", authority),
        ("token", text(&kubeconfig["users"][0]["user"]["token"]).into_bytes()),
        // That of the sidecar's own pod.
        ("namespace", b"default".to_vec()),
    ];
    let account = directory.join("serviceaccount");
    std::fs::create_dir(&account)?;
    for (name, content) in files {
        std::fs::write(account.join(name), content)?;
    }
    let program = directory.join("in-pod");
    std::fs::write(&program, IN_POD)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let server = text(&cluster["server"]);
    let server = server.strip_prefix("https://").context("no https")?;
    let (host, port) = server.rsplit_once(':').context("no port")?;
    Ok(options
        .sidecar_program(&program)
        .sidecar("ACCOUNT", &account.display().to_string())
        .sidecar("SIDECAR", &Programs::from_environment()?.sidecar.display().to_string())
        .sidecar("KUBERNETES_NAMESPACE", &namespace)
        .sidecar("KUBERNETES_SERVICE_HOST", host)
        .sidecar("KUBERNETES_SERVICE_PORT", port))
}

/// A newcomer's first job, and what `doctor` says.
pub(crate) async fn first_light() -> Figures {
    run_with(MAX, Options::default(), Credentials::OfPod, async |runners| {
        let account = Account::open(MAX);
        let doctor = runners.stack.sidecar.run(&["doctor"]).await?;
        let printed = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(printed.contains("may create pods"), "{printed}");
        ensure!(!printed.contains("may not"), "{printed}");
        let job = runners.stack.queue(0.5);
        runners.stack.completed(job).await?;
        account.close(runners.stack).await
    })
    .await
}

/// The sidecar is killed at random moments, including its start.
pub(crate) async fn sidecar_killed(plan: &Plan) -> Figures {
    run(MAX, async |runners| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        for _ in 0..KILLS {
            let Stack { sandbox, sidecar, .. } = &mut *runners.stack;
            let load = load::bounded(sandbox, random.fork(), JOBS_MAX);
            tokio::select! {
                killed = kill(sidecar, &mut random) => killed?,
                never = load => match never {},
            }
            account.faults += 1;
        }
        runners.stack.sidecar.ready().await?;
        account.close(runners.stack).await
    })
    .await
}

async fn kill(sidecar: &mut edgerunner_tests::Sidecar, random: &mut Rng) -> Result<()> {
    if random.bool() {
        sidecar.ready().await?;
    }
    // A pod needs a second or two.
    sleep(Duration::from_millis(random.u64(0..=4_000))).await;
    sidecar.kill().await?;
    sidecar.spawn()
}

/// Somebody deletes the pod of a busy runner. No other one is disturbed.
pub(crate) async fn pod_deleted() -> Figures {
    run(MAX, async |runners| {
        let mut account = Account::open(MAX).killing_work();
        let job = runners.stack.at_work().await?;
        let other = runners.stack.queue(5.0);
        runners.stack.in_progress(other).await?;
        let pod = runners.pod_of(job).await?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        runners.kubectl(&format!("delete pod {name} --wait=false")).await?;
        account.faults += 1;
        // GitHub misses the runner.
        let ended = runners.stack.completed(job).await?;
        ensure!(ended.conclusion != Some(Conclusion::Success), "{ended:?}");
        let other = runners.stack.completed(other).await?;
        ensure!(other.conclusion == Some(Conclusion::Success), "{other:?}");
        account.close(runners.stack).await
    })
    .await
}

/// The kubelet of a busy runner's node stops for a while. The job goes on, and others find a node.
pub(crate) async fn kubelet_stopped() -> Figures {
    run(MAX, async |runners| {
        let mut account = Account::open(MAX);
        let job = runners.stack.queue(LONG_JOB_SECONDS);
        runners.stack.in_progress(job).await?;
        let pod = eventually("the pod's start is known", async || {
            let pod = runners.pod_of(job).await?;
            Ok((pod["status"]["phase"] == "Running").then_some(pod))
        })
        .await?;
        let node = pod["spec"]["nodeName"].as_str().context("no node")?;
        let kubelet = runners.cluster.kubelets.get(node);
        let kubelet = *kubelet.with_context(|| format!("{node} is not on this machine"))?;
        let kubelet = Pid::from_raw(i32::try_from(kubelet)?).context("no process")?;
        kill_process(kubelet, Signal::STOP)?;
        account.faults += 1;
        let away = async {
            eventually_within(LOST_LIMIT, "the runner is unreachable", async || {
                let status = runners.stack.sidecar.status().await?;
                let live = status["runners"].as_array().context("no runners")?.iter();
                let mut unreachable = live.filter(|it| !it["unreachable_ms"].is_null());
                Ok(unreachable.next().map(|_| ()))
            })
            .await?;
            let next = runners.stack.queue(0.5);
            runners.stack.completed(next).await?;
            let elsewhere = runners.stack.sandbox.job(next).context("no job")?;
            ensure!(elsewhere.conclusion == Some(Conclusion::Success), "{elsewhere:?}");
            eventually_within(LOST_LIMIT, "the long job is over", async || {
                let job = runners.stack.sandbox.job(job).context("no job")?;
                Ok(job.conclusion.is_some().then_some(()))
            })
            .await
        }
        .await;
        kill_process(kubelet, Signal::CONT)?;
        away?;
        account.close(runners.stack).await
    })
    .await
}

/// Many more jobs than pods.
pub(crate) async fn many_jobs() -> Figures {
    run(MANY_MAX, async |runners| {
        let account = Account::open(MANY_MAX);
        let request = JobRequest { seconds: 0.5, count: MANY_JOBS, ..JobRequest::default() };
        let jobs: HashSet<u64> = runners.stack.sandbox.queue_jobs(&request).into_iter().collect();
        let mut peak = 0;
        let over = eventually_within(MANY_LIMIT, "all jobs are over", async || {
            let all = runners.stack.sandbox.jobs();
            let over = all.iter().filter(|job| job.conclusion.is_some()).count();
            ensure!(over == jobs.len(), "{over} of {} jobs are over", jobs.len());
            Ok(Some(()))
        });
        tokio::select! {
            over = over => over?,
            failed = runners.watch_peak(&mut peak) => match failed? {},
        }
        ensure!(peak <= MANY_MAX, "{peak} pods at once");
        let figures = account.close(runners.stack).await?;
        Ok(Figures { live: (peak, MANY_MAX), ..figures })
    })
    .await
}

/// A quota is used up, and then there is room.
pub(crate) async fn quota_used_up() -> Figures {
    run(MAX, async |runners| {
        let mut account = Account::open(MAX);
        runners.kubectl("create quota none --hard=pods=0").await?;
        eventually("the quota applies", async || {
            let quota = runners.kubectl("get quota none --output=json").await?;
            let quota: Value = serde_json::from_str(&quota)?;
            Ok((quota["status"]["hard"]["pods"] == "0").then_some(()))
        })
        .await?;
        account.faults += 1;
        let job = runners.stack.queue(0.5);
        let message = runners.stack.waits_for(job, "no_room").await?;
        ensure!(message.contains("quota"), "{message}");
        runners.kubectl("delete quota none").await?;
        runners.stack.completed(job).await?;
        account.close(runners.stack).await
    })
    .await
}

/// No node suits a pool, until one is labelled.
pub(crate) async fn no_node_suits() -> Figures {
    const LABEL: &str = "edgerunner-test-disk";
    let options = Options::default().sidecar("RUNNER_PLACEMENT", &format!("{LABEL}==ssd"));
    run_with(MAX, options, Credentials::File, async |runners| {
        let mut account = Account::open(MAX);
        account.faults += 1;
        let job = runners.stack.queue(0.5);
        let message = runners.stack.waits_for(job, "no_room").await?;
        ensure!(message.contains("node"), "{message}");
        runners.kubectl(&format!("label nodes --all {LABEL}=ssd")).await?;
        let done = runners.stack.completed(job).await;
        runners.kubectl(&format!("label nodes --all {LABEL}-")).await?;
        done?;
        account.close(runners.stack).await
    })
    .await
}

/// What is refused for good is a cause that people can read.
pub(crate) async fn refused() -> Figures {
    let file = "[[pools]]\nname = 'no-image'\nlabels = ['no-image']\nprovider = 'kubernetes'\n\
                runner_image = 'localhost:9/edgerunner/none:1'\nmax = 1\n\
                [[pools]]\nname = 'large'\nlabels = ['large']\nprovider = 'kubernetes'\n\
                memory_mib = 2048\nmax = 1\n";
    run_with(MAX, Options::default().file(file), Credentials::File, async |runners| {
        let mut account = Account::open(MAX);
        let limits = json!({ "apiVersion": "v1", "kind": "LimitRange",
            "metadata": { "name": "small", "namespace": runners.name },
            "spec": { "limits": [{ "type": "Container", "max": { "memory": "1Gi" },
                "default": { "memory": "1Gi" }, "defaultRequest": { "memory": "16Mi" } }] } });
        runners.cluster.kubectl_with("apply --filename=-", &limits.to_string()).await?;
        for (label, expected) in [("no-image", "localhost:9"), ("large", "maximum memory")] {
            account.faults += 1;
            let job = runners.stack.queue_for(label);
            let message = runners.stack.waits_for(job, "back_off").await?;
            ensure!(message.contains(expected), "{message}");
            runners.stack.cancel(job).await?;
        }
        account.close(runners.stack).await
    })
    .await
}
