//! A host with a kubelet and containerd.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::PAUSE_IMAGE;
use crate::hosts::{Cgroups, Host, Network};
use crate::{Process, eventually_within, runtime};

const START_LIMIT: Duration = Duration::from_secs(60);
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The addresses of a node's pods; each node translates them.
const PODS: &str = "10.85.0.0/16";

/// Directories that container runtimes and kubelets have by their name. This machine's own stay as
/// they are.
const OWN_DIRECTORIES: &str = "mount -t tmpfs tmpfs /var/log && mount -t tmpfs tmpfs /var/lib";

/// What all nodes share.
pub(super) struct Shared<'a> {
    pub(super) network: &'a Network,
    /// The directory with `lib/cni`.
    pub(super) programs: &'a Path,
    pub(super) path: &'a OsStr,
    pub(super) cgroups: &'a Cgroups,
}

pub(super) struct Node {
    name: String,
    address: Ipv4Addr,
    directory: PathBuf,
    path: OsString,
    kubeconfig: PathBuf,
    host: Host,
    processes: Vec<Process>,
}

impl Node {
    /// A host without a kubelet yet.
    pub(super) async fn new(
        shared: &Shared<'_>,
        name: &str,
        number: u8,
        directory: PathBuf,
        kubeconfig: PathBuf,
    ) -> Result<Self> {
        let Shared { network, programs, path, cgroups } = *shared;
        let host = Host::start(name, &programs.join("bin/tini-static"))?;
        network.attach(&host, number).await?;
        let networks = directory.join("networks");
        std::fs::create_dir_all(&networks)?;
        let bridge = bridge().to_string();
        std::fs::write(networks.join("bridge.conflist"), bridge)?;
        std::fs::write(directory.join("containerd.toml"), containerd(&directory, programs)?)?;
        cgroups.create(name)?;
        let kubelet = kubelet(&cgroups.of_host(name)).to_string();
        std::fs::write(directory.join("kubelet.json"), kubelet)?;
        Ok(Self {
            name: name.to_owned(),
            address: network.outside_address(number),
            directory,
            path: path.to_owned(),
            kubeconfig,
            host,
            processes: Vec::new(),
        })
    }

    /// Its host name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts containerd, loads this archive of images, and starts the kubelet.
    pub(super) async fn start(&mut self, images: &Path) -> Result<()> {
        self.run("sh", &["-c", OWN_DIRECTORIES]).await?;
        let file = |name: &str| self.directory.join(name).display().to_string();
        let containerd =
            self.process("containerd", &["--config".to_owned(), file("containerd.toml")])?;
        self.processes.push(containerd);
        eventually_within(START_LIMIT, "containerd answers", async || {
            self.run("ctr", &["version"]).await.map(Some)
        })
        .await?;
        let images = images.display().to_string();
        self.run("ctr", &["--namespace=k8s.io", "images", "import", &images]).await?;
        let kubelet = self.process(
            "kubelet",
            &[
                format!("--config={}", file("kubelet.json")),
                format!("--kubeconfig={}", self.kubeconfig.display()),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={}", self.address),
                format!("--root-dir={}", file("kubelet")),
                "--container-runtime=remote".to_owned(),
                format!("--container-runtime-endpoint=unix://{CONTAINERD}"),
            ],
        )?;
        self.processes.push(kubelet);
        Ok(())
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.host.command(program);
        let output = command.args(arguments).env_clear().env("PATH", &self.path).output().await?;
        ensure!(
            output.status.success(),
            "`{program} {}` failed on {}: {}",
            arguments.join(" "),
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn process(&self, name: &'static str, arguments: &[String]) -> Result<Process> {
        self.host.process(name, arguments, &self.path, &self.log_file(name))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("log")
    }

    /// The end of the kubelet's log.
    pub(super) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.log_file("kubelet")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
        format!("{}:\n{}\n", self.name, tail.join("\n"))
    }

    /// The number of the kubelet's process, on this machine.
    pub(super) fn kubelet(&self) -> Result<u32> {
        let kubelet = self.processes.iter().find(|process| process.name() == "kubelet");
        kubelet.context("no kubelet")?.child_id()
    }

    /// Ends the host, without waiting for the end.
    pub(super) fn close(&mut self) {
        self.host.close();
    }
}

fn bridge() -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": PODS }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

/// As `containerd config default` names them.
fn containerd(directory: &Path, programs: &Path) -> Result<String> {
    let shown = |path: PathBuf| path.display().to_string();
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    let mut text = format!(
        r#"version = 2
root = "{}"
[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{}"
conf_dir = "{}"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        shown(directory.join("containerd")),
        shown(programs.join("lib/cni")),
        shown(directory.join("networks")),
    );
    if let Some(wrapper) = runtime::wrapper(directory)? {
        text += &format!(
            "[{cri}.containerd.runtimes.runc.options]\nBinaryName = \"{}\"\n",
            wrapper.display()
        );
    }
    Ok(text)
}

fn kubelet(cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Only this machine reaches it.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": false,
        // Nodes share this machine's disk, which is not the cluster's alone.
        "evictionHard": { "memory.available": "1Mi", "nodefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        "makeIPTablesUtilChains": false,
    })
}
