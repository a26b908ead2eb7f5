//! The tests with a real cluster: that of `KUBECONFIG`, or a control plane and nodes that they start
//! on this machine.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::control_plane::{ControlPlane, Kubernetes};
use edgerunner_testkit::programs::RUNNER_IMAGE;
use edgerunner_testkit::workspace;
use serde_json::Value;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::debs::KUBERNETES;
use crate::docker::Engine;
use crate::image;
use crate::progress::Step;
use crate::python::remove;
use crate::rootfs::find;
use crate::stop::Stop;
use crate::test::show;

/// The variable with the directory of the programs.
pub(crate) const PROGRAMS: &str = "EDGERUNNER_KUBERNETES_PROGRAMS";
/// What the names of fault tests begin with that need a cluster.
pub(crate) const SCENARIOS: &str = "Kubernetes";

/// The variable that kubectl reads.
const KUBECONFIG: &str = "KUBECONFIG";
const NODES: usize = 2;
const BUILT: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];
/// The release that [`KUBERNETES`] has the source of, as its build reads it.
const VERSION: &str = "KUBE_GIT_VERSION=v1.20.2
KUBE_GIT_MAJOR=1
KUBE_GIT_MINOR=20
KUBE_GIT_COMMIT=0000000000000000000000000000000000000000
KUBE_GIT_TREE_STATE=archive
";

/// A cluster for tests, and what keeps it running.
pub(crate) struct Cluster {
    pub(crate) access: Kubernetes,
    _own: Option<ControlPlane>,
}

impl Cluster {
    /// Takes or starts one whose nodes have the image of the sandbox's runner. `programs`: as
    /// [`programs`] returned them.
    pub(crate) async fn start(stop: &Stop, programs: Option<&Path>) -> Result<Self> {
        let Some(programs) = programs else {
            let step = Step::start("cluster of KUBECONFIG");
            let access = stop.or(given()).await?;
            step.done("");
            return Ok(Self { access, _own: None });
        };
        let step = Step::start("Kubernetes with two nodes");
        let own = stop.or(ControlPlane::start(programs, NODES, &[RUNNER_IMAGE])).await?;
        step.done("");
        Ok(Self { access: own.access().clone(), _own: Some(own) })
    }
}

/// A cluster that somebody else has started.
async fn given() -> Result<Kubernetes> {
    let kubeconfig = std::env::var_os(KUBECONFIG).context("KUBECONFIG is not set")?;
    // The tests have another current directory.
    let kubeconfig = std::path::absolute(kubeconfig)?;
    let kubectl = find("kubectl").context("kubectl is missing; install it")?;
    let mut access =
        Kubernetes { kubectl, kubeconfig, gateway: [0; 4].into(), kubelets: BTreeMap::new() };
    let nodes = access.list("nodes").await?;
    let addresses = nodes.iter().filter_map(internal_address);
    let address = addresses.into_iter().next().context("no node has an InternalIP")?;
    // Nothing is sent. The kernel chooses the address at which that node reaches this machine.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, 1)).with_context(|| format!("no route to the node at {address}"))?;
    access.gateway = socket.local_addr()?.ip();
    for node in nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        // Nodes of kind and minikube are containers of this machine.
        let mut top = Command::new("docker");
        top.args(["top", &name, "-eo", "pid,comm"]);
        let Some(processes) = command::output(top).await else { continue };
        load(&name).await?;
        let kubelet = processes.lines().find_map(|line| {
            let (pid, program) = line.trim().split_once(char::is_whitespace)?;
            (program.trim() == "kubelet").then(|| pid.parse().ok())?
        });
        access.kubelets.extend(kubelet.map(|pid| (name, pid)));
    }
    Ok(access)
}

fn internal_address(node: &Value) -> Option<&str> {
    let addresses = node["status"]["addresses"].as_array()?;
    addresses.iter().find(|it| it["type"] == "InternalIP")?["address"].as_str()
}

/// Loads the runner's image into a node that is a container of this machine.
async fn load(node: &str) -> Result<()> {
    let import = format!(
        "docker save {RUNNER_IMAGE} | \
         docker exec --interactive {node} ctr --namespace=k8s.io images import -"
    );
    let output = Command::new("sh").args(["-c", &import]).output().await?;
    ensure!(
        output.status.success(),
        "`{import}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// The directory with the programs of Kubernetes; `None` if there is a cluster. Builds them once, in
/// about ten minutes on two processors: Debian has no packages of them.
pub(crate) async fn programs(stop: &Stop) -> Result<Option<PathBuf>> {
    if std::env::var_os(KUBECONFIG).is_some() {
        return Ok(None);
    }
    let mut step = Step::start("Kubernetes, from Debian's source package");
    let directory = KUBERNETES.directory();
    if !KUBERNETES.are_unpacked() {
        step.say("it is built once, in about ten minutes, and kept in target/kubernetes");
        for program in ["make", "rsync", "cc"] {
            if find(program).is_none() {
                let packages = ["gcc", "libc6-dev", "make", "rsync"];
                apt::install(stop, &mut step, &packages, program).await?;
            }
        }
        let unpacked = KUBERNETES.unpack(stop, &mut step).await;
        let partial = unpacked.context("KUBECONFIG names no cluster, and none can be built")?;
        build(stop, &mut step, &partial).await?;
        KUBERNETES.finish(&partial)?;
    }
    step.done(&workspace::shown(&directory));
    Ok(Some(directory.join("usr")))
}

/// Builds the image that only a cluster of these programs needs.
pub(crate) async fn image(stop: &Stop, engine: &Engine, programs: Option<&Path>) -> Result<()> {
    match programs {
        Some(programs) => image::build_pause(stop, engine, &programs.join("bin/pause")).await,
        None => Ok(()),
    }
}

/// Builds the programs into `usr/bin`, and removes what only the build needed.
async fn build(stop: &Stop, step: &mut Step, directory: &Path) -> Result<()> {
    let entries = directory.read_dir()?.flatten().map(|entry| entry.path());
    let mut sources = entries.filter(|path| path.join("cmd/kubelet").is_dir());
    let source = sources.next().context("the source package has another layout")?;
    let version = directory.join("version");
    std::fs::write(&version, VERSION)?;
    // Outside of the directory, so that an interrupted build goes on where it was.
    let cache = directory.with_extension("cache");
    let go = directory.join("usr/lib/go-1.19");
    let own = std::env::var_os("PATH").unwrap_or_default();
    let path = [go.join("bin")].into_iter().chain(std::env::split_paths(&own));
    let what: Vec<String> = BUILT.iter().map(|program| format!("cmd/{program}")).collect();
    let mut make = Command::new("make");
    make.current_dir(&source)
        .arg(format!("WHAT={}", what.join(" ")))
        // Without symbols.
        .arg("GOLDFLAGS=-s -w")
        .env("PATH", std::env::join_paths(path)?)
        .env("GOROOT", &go)
        .env("GOCACHE", &cache)
        .env("GO111MODULE", "off")
        .env("KUBE_GIT_VERSION_FILE", &version);
    command::run(stop, step, make).await?;
    let bin = directory.join("usr/bin");
    for program in BUILT {
        std::fs::copy(source.join("_output/bin").join(program), bin.join(program))
            .with_context(|| format!("the build made no {program}"))?;
    }
    let mut compile = Command::new("cc");
    compile.args(["-Os", "-static", "-o"]).arg(bin.join("pause"));
    compile.arg(source.join("build/pause/linux/pause.c"));
    command::run(stop, step, compile).await?;
    for needless in [&source, &cache, &go, &directory.join("usr/share")] {
        remove(needless)?;
    }
    Ok(())
}

/// Runs these tests with a cluster.
pub(crate) async fn run(stop: &Stop, programs: Option<&Path>, mut tests: Command) -> Result<()> {
    let cluster = Cluster::start(stop, programs).await?;
    cluster.access.pass_to(&mut tests)?;
    show(stop, tests).await
}
