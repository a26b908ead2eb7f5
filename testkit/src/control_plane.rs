//! A control plane of Kubernetes on this machine, with nodes on hosts made of namespaces.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

use self::node::Node;
use crate::hosts::{Cgroups, Host, Network, search_path};
use crate::{Authority, Process, eventually_within, images};

mod node;

/// The number of the control plane's host. Those of nodes follow.
const HOST: u8 = 1;
const PORT: u16 = 6443;
/// All programs of a control plane on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// For tests that look at nodes which are lost: the default is five minutes.
const LOST_NODE_TOLERATION: &str = "10";
/// What nodes and pods need of the API server at once is no test of ours.
const UNLIMITED: [&str; 2] = ["--kube-api-qps=200", "--kube-api-burst=400"];
/// The image of a pod's network namespace, in place of `registry.k8s.io/pause`.
pub const PAUSE_IMAGE: &str = "edgerunner/pause:local";

const PERMISSIONS: &str = include_str!("../../packaging/kubernetes/runners.yaml");
/// The namespace in [`PERMISSIONS`].
const NAMESPACE: &str = "edgerunner-runners";

/// The variable that has the [`Kubernetes`] that all tests use.
const VARIABLE: &str = "EDGERUNNER_KUBERNETES";

/// How to reach a cluster, also from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubernetes {
    pub kubectl: PathBuf,
    /// Of an administrator.
    pub kubeconfig: PathBuf,
    /// The address at which pods reach this machine.
    pub gateway: IpAddr,
    /// The process of each node's kubelet, by the node's name; those of nodes on this machine.
    pub kubelets: BTreeMap<String, u32>,
}

impl Kubernetes {
    /// As [`Self::pass_to`] left it.
    pub fn from_environment() -> Result<Self> {
        let text = std::env::var(VARIABLE);
        let text = text.with_context(|| format!("{VARIABLE} is not set: run it by cargo xtask"))?;
        serde_json::from_str(&text).with_context(|| format!("bad {VARIABLE}"))
    }

    pub fn pass_to(&self, command: &mut Command) -> Result<()> {
        command.env(VARIABLE, serde_json::to_string(self)?);
        Ok(())
    }

    /// Runs kubectl with the words of `arguments`, and returns its standard output.
    pub async fn kubectl(&self, arguments: &str) -> Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// The same with a standard input.
    pub async fn kubectl_with(&self, arguments: &str, stdin: &str) -> Result<String> {
        let mut child = Command::new(&self.kubectl)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.kubectl.display()))?;
        let mut input = child.stdin.take().context("no standard input")?;
        let (written, output) = tokio::join!(
            async move { input.write_all(stdin.as_bytes()).await },
            child.wait_with_output()
        );
        let output = output?;
        ensure!(
            output.status.success(),
            "`kubectl {arguments}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        written?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Creates a namespace for runners, with the permissions that `packaging/kubernetes/runners.yaml`
    /// gives the sidecar. Returns a kubeconfig for the sidecar. `scheduler.instance` has to be the
    /// name without `-runners`.
    pub async fn installation(&self, name: &str) -> Result<String> {
        let permissions = PERMISSIONS
            .replace(NAMESPACE, name)
            // The service account is elsewhere in an installation.
            .replace("    namespace: edgerunner\n", &format!("    namespace: {name}\n"));
        self.kubectl_with("apply --filename=-", &permissions).await?;
        self.kubectl(&format!("create serviceaccount edgerunner --namespace={name}")).await?;
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts/edgerunner/token");
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "expirationSeconds": 7200 } });
        let command = format!("create --raw={path} --filename=-");
        let answer = self.kubectl_with(&command, &request.to_string()).await?;
        let answer: Value = serde_json::from_str(&answer)?;
        let token = answer["status"]["token"].as_str().context("no token")?;
        let command = "config view --raw --minify --flatten --output=json";
        let mut kubeconfig: Value = serde_json::from_str(&self.kubectl(command).await?)?;
        kubeconfig["users"][0]["user"] = json!({ "token": token });
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(name);
        Ok(kubeconfig.to_string())
    }

    /// The items of a list.
    pub async fn list(&self, arguments: &str) -> Result<Vec<Value>> {
        let list = self.kubectl(&format!("get {arguments} --output=json")).await?;
        let mut list: Value = serde_json::from_str(&list)?;
        serde_json::from_value(list["items"].take()).context("no items")
    }
}

/// It ends, with all nodes and everything on them, when it is dropped and when this process ends.
pub struct ControlPlane {
    access: Kubernetes,
    nodes: Vec<Node>,
    _processes: Vec<Process>,
    _host: Host,
    // After the nodes, which have to end first.
    _cgroups: Cgroups,
    _network: Network,
    _directory: TempDir,
}

impl ControlPlane {
    /// `programs` is a directory with the programs of Kubernetes, etcd, containerd and its network
    /// plugins in `bin` and `lib/cni`; runc is the machine's. Each node gets `images` from the
    /// machine's own Engine, with [`PAUSE_IMAGE`]. Needs root.
    pub async fn start(programs: &Path, nodes: usize, images: &[&str]) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "nodes need root: run it as root");
        let id = &Uuid::new_v4().simple().to_string()[..8];
        let directory = TempDir::with_prefix("kubernetes-")?;
        let bin = programs.join("bin");
        let init = bin.join("tini-static");
        let network = Network::new(id, &init).await?;
        let host = Host::start("control-plane", &init)?;
        network.attach(&host, HOST).await?;
        let path = search_path(&bin)?;
        let control = Control {
            host: &host,
            path: &path,
            directory: directory.path(),
            address: (network.outside_address(HOST), PORT).into(),
        };
        let credentials = Credentials::write(&control, nodes)?;
        let access = Kubernetes {
            kubectl: bin.join("kubectl"),
            kubeconfig: credentials.of("admin"),
            gateway: network.gateway().into(),
            kubelets: BTreeMap::new(),
        };
        let processes = control.start(&access, &credentials).await?;
        let archive = directory.path().join("images.tar");
        std::fs::write(&archive, images::export(&[images, &[PAUSE_IMAGE]].concat()).await?)?;
        let cgroups = Cgroups::new(id);
        let shared = node::Shared { network: &network, programs, path: &path, cgroups: &cgroups };
        let mut started = Vec::new();
        for name in node_names(nodes) {
            let number = HOST + 1 + u8::try_from(started.len())?;
            let directory = directory.path().join(&name);
            let kubeconfig = credentials.of(&name);
            started.push(Node::new(&shared, &name, number, directory, kubeconfig).await?);
        }
        try_join_all(started.iter_mut().map(|node| node.start(&archive))).await?;
        std::fs::remove_file(archive)?;
        let mut plane = Self {
            access,
            nodes: started,
            _processes: processes,
            _host: host,
            _cgroups: cgroups,
            _network: network,
            _directory: directory,
        };
        plane.ready().await?;
        Ok(plane)
    }

    pub fn access(&self) -> &Kubernetes {
        &self.access
    }

    async fn ready(&mut self) -> Result<()> {
        eventually_within(START_LIMIT, "all nodes are ready", async || {
            let nodes = self.access.list("nodes").await?;
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            Ok((ready == self.nodes.len()).then_some(()))
        })
        .await
        .with_context(|| self.nodes.iter().map(Node::log).collect::<String>())?;
        for node in &self.nodes {
            self.access.kubelets.insert(node.name().to_owned(), node.kubelet()?);
        }
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // All at once, and then each is waited for.
        self.nodes.iter_mut().for_each(Node::close);
    }
}

/// What the programs of the control plane share.
struct Control<'a> {
    host: &'a Host,
    /// `PATH`, with these programs in front.
    path: &'a OsStr,
    directory: &'a Path,
    /// The API server's.
    address: SocketAddr,
}

impl Control<'_> {
    async fn start(&self, access: &Kubernetes, credentials: &Credentials) -> Result<Vec<Process>> {
        const ETCD: &str = "http://127.0.0.1:2379";
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut processes = vec![self.process(
            "etcd",
            &[
                format!("--data-dir={}", file("etcd")),
                format!("--listen-client-urls={ETCD}"),
                format!("--advertise-client-urls={ETCD}"),
                // Nothing is read after a crash of the machine.
                "--unsafe-no-fsync".to_owned(),
            ],
        )?];
        let api_server = self.process(
            "kube-apiserver",
            &[
                format!("--etcd-servers={ETCD}"),
                format!("--bind-address={}", self.address.ip()),
                format!("--advertise-address={}", self.address.ip()),
                format!("--secure-port={PORT}"),
                format!("--tls-cert-file={}", file("api.crt")),
                format!("--tls-private-key-file={}", file("api.key")),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--allow-privileged=true".to_owned(),
                "--service-cluster-ip-range=10.84.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("accounts.crt")),
                format!("--service-account-signing-key-file={}", file("accounts.key")),
                format!("--default-not-ready-toleration-seconds={LOST_NODE_TOLERATION}"),
                format!("--default-unreachable-toleration-seconds={LOST_NODE_TOLERATION}"),
            ],
        )?;
        let answers = eventually_within(START_LIMIT, "the API server is ready", async || {
            access.kubectl("get --raw /readyz").await.map(Some)
        });
        tokio::select! {
            answers = answers => answers?,
            error = api_server.died() => return Err(error),
        };
        processes.push(api_server);
        let mut arguments: Vec<String> = UNLIMITED.map(str::to_owned).into();
        arguments.push("--leader-elect=false".to_owned());
        let with = |name: &str, more: &[String]| {
            let kubeconfig = format!("--kubeconfig={}", credentials.of(name).display());
            [&arguments[..], &[kubeconfig], more].concat()
        };
        let scheduler = with("scheduler", &[]);
        processes.push(self.process("kube-scheduler", &scheduler)?);
        let controllers = with(
            "controllers",
            &[
                format!("--service-account-private-key-file={}", file("accounts.key")),
                format!("--root-ca-file={}", file("ca.crt")),
            ],
        );
        processes.push(self.process("kube-controller-manager", &controllers)?);
        Ok(processes)
    }

    fn process(&self, name: &'static str, arguments: &[String]) -> Result<Process> {
        let log = self.directory.join(name).with_extension("log");
        self.host.process(name, arguments, self.path, &log)
    }
}

/// Files with the credentials of everyone.
struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    fn write(control: &Control<'_>, nodes: usize) -> Result<Self> {
        let directory = control.directory;
        let authority = Authority::new()?;
        let server = authority.issue(&control.address.ip().to_string())?;
        // Only its keys are used.
        let accounts = authority.issue("service-accounts")?;
        let files = [
            ("ca.crt", &authority.certificate),
            ("api.crt", &server.certificate),
            ("api.key", &server.key),
            ("accounts.crt", &accounts.certificate),
            ("accounts.key", &accounts.key),
        ];
        for (name, text) in files {
            std::fs::write(directory.join(name), text)?;
        }
        let mut users = vec![
            ("admin".to_owned(), "admin".to_owned(), "system:masters"),
            ("scheduler".to_owned(), "system:kube-scheduler".to_owned(), ""),
            // Its controllers could have an account each.
            ("controllers".to_owned(), "controllers".to_owned(), "system:masters"),
        ];
        users.extend(node_names(nodes).map(|name| {
            let user = format!("system:node:{name}");
            (name, user, "system:nodes")
        }));
        let credentials = Self { directory: directory.to_owned() };
        let mut tokens = String::new();
        for (name, user, group) in users {
            let token = Uuid::new_v4().simple().to_string();
            tokens += &format!("{token},{user},{name},\"{group}\"\n");
            let text = kubeconfig(control.address, &authority.certificate, &token, "default");
            std::fs::write(credentials.of(&name), text)?;
        }
        std::fs::write(directory.join("tokens.csv"), tokens)?;
        Ok(credentials)
    }

    fn of(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("kubeconfig")
    }
}

/// The context `test` of a kubeconfig. `authority`: PEM of who signed the server's certificate.
pub fn kubeconfig(server: SocketAddr, authority: &str, token: &str, namespace: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{ "name": "here", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": BASE64_STANDARD.encode(authority),
        } }],
        "users": [{ "name": "me", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": {
            "cluster": "here", "user": "me", "namespace": namespace,
        } }],
    })
    .to_string()
}

fn node_names(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|number| format!("node-{number}"))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|it| it["type"] == "Ready").any(|it| it["status"] == "True")
}
