//! The time from the response to a webhook to a running pod, compared with `kubectl run` of the same
//! image.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use edgerunner_testkit::control_plane::Kubernetes;
use edgerunner_testkit::deployment::{Secrets, Settings};
use edgerunner_testkit::ports::Ports;
use edgerunner_testkit::programs::{RUNNER_CREDENTIALS, RUNNER_IMAGE};
use edgerunner_testkit::{Deployment, Programs};
use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::directory;
use crate::engines::milliseconds;
use crate::launch::{Titles, answered, comparison, launches};

const INSTANCE: &str = "bench-pods";
const LIMIT: Duration = Duration::from_secs(120);
const TITLES: Titles = Titles {
    header: "pods",
    ours: "edgerunner: from 202 to running, credentials included",
    bare: "kubectl run of the same image, until running",
};
/// The pod of the other side, and its runner's label, which no pool has.
const BARE: &str = "bare";

pub(crate) async fn measure(programs: &Programs, rounds: u32) -> Result<String> {
    let cluster = Kubernetes::from_environment()?;
    let namespace = format!("{INSTANCE}-runners");
    let files = TempDir::new()?;
    let file = files.path().join("kubeconfig");
    std::fs::write(&file, cluster.installation(&namespace).await?)?;
    let settings = Settings {
        ports: Ports::free()?,
        directory: directory().join("pods"),
        instance: INSTANCE.to_owned(),
        tls: false,
        envoy_workers: crate::machine::cores(),
        github: cluster.gateway,
    };
    let mut deployment = Deployment::new(programs, settings)?;
    let variables = [
        ("KUBERNETES_KUBECONFIG", file.display().to_string()),
        ("RUNNER_PROVIDER", "kubernetes".to_owned()),
        ("DOCKER_NETWORK", String::new()),
        ("GITHUB_ALLOW_HTTP", "true".to_owned()),
    ];
    let secrets = Secrets::random();
    let measured = async {
        deployment.start_with_sandbox(&secrets, &variables).await?;
        let mut pods = Pods::watch(&cluster, &namespace)?;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        // The first of each is a warm-up.
        for launch in 0..launches(rounds) {
            let through = through_edgerunner(&deployment, &mut pods);
            let through = timeout(LIMIT, through).await.context("a launch timed out")??;
            let directly = directly(&deployment, &cluster, &mut pods, &secrets.token, launch);
            let directly = timeout(LIMIT, directly).await.context("kubectl run timed out")??;
            if launch > 0 {
                ours.push(through);
                bare.push(directly);
            }
        }
        anyhow::Ok((ours, bare))
    };
    let measured = measured.await;
    deployment.stop().await;
    cluster.kubectl(&format!("delete namespace {namespace} --wait=false")).await?;
    let (ours, bare) = measured?;
    Ok(comparison(&TITLES, &ours, &bare))
}

/// Milliseconds from the 202 until the runner's pod was seen to run.
async fn through_edgerunner(deployment: &Deployment, pods: &mut Pods) -> Result<f64> {
    let sandbox = deployment.sandbox();
    let job = json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 3.0 });
    let job = sandbox.queue(&job).await?.first().copied().context("no job was queued")?;
    let running = pods.running().await?;
    pods.none_is_left().await?;
    Ok(milliseconds(answered(&sandbox, job).await?, running))
}

/// Milliseconds from the start of `kubectl run` until its pod was seen to run.
async fn directly(
    deployment: &Deployment,
    cluster: &Kubernetes,
    pods: &mut Pods,
    token: &str,
    number: u32,
) -> Result<f64> {
    let runner = json!({ "name": format!("{BARE}-{number}"), "runner_group_id": 1,
        "labels": [BARE] });
    let credentials = deployment.sandbox().register(token, &runner).await?;
    let namespace = format!("--namespace={}", pods.namespace);
    let begun = Timestamp::now();
    let run = format!(
        "run {BARE} {namespace} --image={RUNNER_IMAGE} --restart=Never \
         --env={RUNNER_CREDENTIALS}={credentials}"
    );
    cluster.kubectl(&run).await?;
    let running = pods.running().await?;
    let delete = format!("delete pod {BARE} {namespace} --grace-period=1 --wait=false");
    cluster.kubectl(&delete).await?;
    pods.none_is_left().await?;
    Ok(milliseconds(begun, running))
}

/// The same watch for both sides.
struct Pods {
    namespace: String,
    cluster: Kubernetes,
    lines: Lines<BufReader<ChildStdout>>,
    _kubectl: Child,
}

impl Pods {
    fn watch(cluster: &Kubernetes, namespace: &str) -> Result<Self> {
        let mut kubectl = Command::new(&cluster.kubectl)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .args(["get", "pods", "--watch", "--namespace", namespace])
            .arg("--output=jsonpath={.status.phase}{\"\\n\"}")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = kubectl.stdout.take().context("no standard output")?;
        let lines = BufReader::new(stdout).lines();
        let (namespace, cluster) = (namespace.to_owned(), cluster.clone());
        Ok(Self { namespace, cluster, lines, _kubectl: kubectl })
    }

    /// Waits for a pod to run.
    async fn running(&mut self) -> Result<Timestamp> {
        loop {
            let line = self.lines.next_line().await?.context("the watch has ended")?;
            if line == "Running" {
                return Ok(Timestamp::now());
            }
        }
    }

    /// Waits for the end of all pods. What they did until then is not read by [`Self::running`].
    async fn none_is_left(&mut self) -> Result<()> {
        let list = format!("pods --namespace={}", self.namespace);
        while !self.cluster.list(&list).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while let Ok(line) = timeout(Duration::from_millis(200), self.lines.next_line()).await {
            line?.context("the watch has ended")?;
        }
        Ok(())
    }
}
