//! The settings of the configuration file, by section. The doc comments are the reference
//! that users read: meaning, unit, range.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Gpus, ProviderName, ToolCache, kubernetes::KubernetesConfig, server::Server, swarm::Swarm,
};
use edgerunner_scheduler::{missed::WebhookId, plan};

/// The database of events, jobs and runners.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// Path of the SQLite database. Its directory must exist.
    #[schemars(extend("x-write" = "a file path"))]
    pub path: PathBuf,
    /// Postgres instead of SQLite: `postgres://USER@HOST[:PORT]/DATABASE`, version 13 or later.
    /// Write several hosts with commas between them; the first one that is not a standby is used.
    /// Connections over TCP use TLS and check the server's certificate and name, unless the URL ends
    /// in `?sslmode=` and one of `verify-ca` (any name), `require` (any certificate) and `disable`.
    #[schemars(extend("x-write" = "a URL such as postgres://edgerunner@db.example.com/edgerunner"))]
    pub url: Option<String>,
    /// File that contains the password of the user in `url`. It is read for each connection, so
    /// you can replace it at any time.
    #[schemars(extend("x-write" = "a file path"))]
    pub password_file: Option<PathBuf>,
    /// CA certificates to trust instead of the system's when connecting to `url`, a PEM file. Read
    /// once, at startup.
    #[schemars(extend("x-write" = "a file path"))]
    pub ca_file: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "/var/lib/edgerunner/edgerunner.db".into(),
            url: None,
            password_file: None,
            ca_file: None,
        }
    }
}

/// The GitHub server, and the default credential for it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GitHub {
    /// Base URL of the REST API: `https://api.github.com`,
    /// `https://api.SUBDOMAIN.ghe.com`, or `https://HOST/api/v3` for a GitHub
    /// Enterprise Server.
    #[schemars(extend("x-write" = "a URL such as https://api.github.com"))]
    pub api_url: String,
    /// Base URL of the web pages, where runners with the contract `registration-token`
    /// register. Webhooks name their server by its host. Derived from `api_url` if not set.
    #[schemars(extend("x-write" = "a URL such as https://github.com"))]
    pub web_url: Option<String>,
    /// Token with permission to register runners. `edgerunner serve` needs one, unless
    /// `[[credentials]]` cover everything that the pools serve.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub token: Option<SecretString>,
    /// File that contains the token. It is read for every call, so you can replace it at
    /// any time.
    #[schemars(extend("x-write" = "a file path"))]
    pub token_file: Option<PathBuf>,
    /// App ID or client ID of a GitHub App, instead of a token. Its installations are found
    /// automatically.
    pub app_id: Option<String>,
    /// Private key of the GitHub App, in PEM format.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub app_private_key: Option<SecretString>,
    /// File that contains the private key of the GitHub App. You can replace it at any
    /// time.
    #[schemars(extend("x-write" = "a file path"))]
    pub app_private_key_file: Option<PathBuf>,
    /// CA certificates to trust in addition to the system's, a PEM file, for example for a
    /// GitHub Enterprise Server. Read once, at startup.
    #[schemars(extend("x-write" = "a file path"))]
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy for requests to `api_url`: `http://[USER:PASSWORD@]HOST[:PORT]`. It must
    /// support `CONNECT`; traffic through it stays encrypted. Defaults to the environment
    /// variable `HTTPS_PROXY`. Hosts in `NO_PROXY` are reached directly.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub proxy_url: Option<SecretString>,
    /// File that contains the proxy URL.
    #[schemars(extend("x-write" = "a file path"))]
    pub proxy_url_file: Option<PathBuf>,
    /// Public URL that GitHub sends webhooks to, such as `https://HOST/webhooks/github`.
    /// Used by the commands that create a webhook, send a delivery or check that deliveries
    /// arrive, and to find webhooks at GitHub whose deliveries are all refused.
    #[schemars(extend("x-write" = "a URL such as https://hooks.example.com/webhooks/github"))]
    pub webhook_url: Option<String>,
    /// Webhook secret. The filter verifies signatures, so the sidecar itself does not need
    /// it: only the commands that use `webhook_url` do.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub webhook_secret: Option<SecretString>,
    /// File that contains the webhook secret.
    #[schemars(extend("x-write" = "a file path"))]
    pub webhook_secret_file: Option<PathBuf>,
    /// Accept an `api_url` that begins with `http://` and is not on this machine. Anyone on the
    /// network in between can then read the token.
    pub allow_http: bool,
    /// Timeout of one call to GitHub, including the response body, in seconds.
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
}

impl Default for GitHub {
    fn default() -> Self {
        Self {
            api_url: "https://api.github.com".into(),
            web_url: None,
            token: None,
            token_file: None,
            app_id: None,
            app_private_key: None,
            app_private_key_file: None,
            ca_file: None,
            proxy_url: None,
            proxy_url_file: None,
            webhook_url: None,
            webhook_secret: None,
            webhook_secret_file: None,
            allow_http: false,
            timeout_seconds: 10,
        }
    }
}

/// Recovery of webhooks that failed or were lost: GitHub does not redeliver them itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MissedWebhooks {
    /// Redeliver failed webhooks and look for queued jobs whose webhook was lost. The
    /// credential needs the permissions Webhooks: read and write (not needed for a GitHub
    /// App's own webhook) and Actions: read. Anything it cannot access is skipped.
    pub enabled: bool,
    /// Share of a credential's hourly API quota that recovery may use. Responses with status
    /// 304 cost nothing. The last tenth of the quota is always reserved for launches.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub budget_share: f64,
    /// Time between two polls of the same webhook or repository, in seconds. Repositories
    /// without an event for a day are polled ten times less often.
    #[schemars(range(min = 1, max = 3_600))]
    pub interval_seconds: u32,
    /// Maximum age of failed deliveries to redeliver, in hours. GitHub keeps deliveries for
    /// 3 days, but a job waits 24 to 48 hours for a runner before GitHub cancels it.
    #[schemars(range(min = 1, max = 72))]
    pub look_back_hours: u32,
    /// Webhooks to watch from the start, by their paths in the REST API:
    /// `repos/OWNER/NAME/hooks/ID`, `orgs/LOGIN/hooks/ID`, or `app/hook` for the webhook of
    /// a GitHub App. All other webhooks are added with their first delivery.
    pub hooks: Vec<String>,
}

impl Default for MissedWebhooks {
    fn default() -> Self {
        Self {
            enabled: true,
            budget_share: 0.2,
            interval_seconds: 60,
            look_back_hours: 24,
            hooks: Vec::new(),
        }
    }
}

impl MissedWebhooks {
    /// `hooks`, parsed. Those that are not valid are left out.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = WebhookId> {
        self.hooks.iter().filter_map(|hook| hook.parse().ok())
    }
}

/// A webhook whose secrets the filter gets from the sidecar, not from its environment.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Name of the hook in the filter's configuration. Leave it out for the hook without a
    /// name.
    pub name: String,
    /// 1 to 4 files with one secret each, the current secret first. The others are for
    /// rotation and may be missing. They are read each time the filter asks for them.
    #[schemars(extend("x-write" = "a list of file paths"))]
    pub secret_files: Vec<PathBuf>,
}

/// A credential for certain repositories, organizations or enterprises.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Credential {
    /// Unique name, shown in messages about this credential: 1 to 30 characters of `a` to
    /// `z`, `0` to `9` and `-`.
    pub(super) name: Option<String>,
    /// Where to use this credential: `OWNER/NAME` for runners of a repository (`*` matches
    /// any characters within either part), `OWNER` for runners of an organization,
    /// `enterprise:SLUG` for runners of an enterprise. Credentials that list the same entry
    /// share what it matches.
    pub(super) targets: Vec<String>,
    /// Token with permission to register runners there.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub(super) token: Option<SecretString>,
    /// File that contains the token, like `github.token_file`.
    #[schemars(extend("x-write" = "a file path"))]
    pub(super) token_file: Option<PathBuf>,
    /// App ID or client ID of a GitHub App, instead of a token.
    pub(super) app_id: Option<String>,
    /// Private key of the GitHub App, in PEM format.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub(super) app_private_key: Option<SecretString>,
    /// File that contains the private key of the GitHub App.
    #[schemars(extend("x-write" = "a file path"))]
    pub(super) app_private_key_file: Option<PathBuf>,
    /// Base URL of the REST API. Defaults to `github.api_url`.
    #[schemars(extend("x-write" = "a URL such as https://api.github.com"))]
    pub(super) api_url: Option<String>,
    /// Base URL of the web pages, like `github.web_url`. Derived from `api_url` if not set.
    #[schemars(extend("x-write" = "a URL such as https://github.com"))]
    pub(super) web_url: Option<String>,
    /// CA certificates to trust, a PEM file. Defaults to `github.ca_file`.
    #[schemars(extend("x-write" = "a file path"))]
    pub(super) ca_file: Option<PathBuf>,
}

/// The login for a container registry.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Host of the registry as in image names, such as `ghcr.io` or
    /// `registry.example.com:5000`. `docker.io` for image names without a host.
    pub host: String,
    /// User name to log in with.
    pub username: String,
    /// Password or access token. It is sent to this registry only.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub password: Option<SecretString>,
    /// File that contains the password.
    #[schemars(extend("x-write" = "a file path"))]
    password_file: Option<PathBuf>,
}

/// The Docker Engine to connect to.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes the settings to the schema")]
struct Docker {
    /// Address of the Docker Engine: `unix:///path/to/docker.sock` or `tcp://HOST:PORT`.
    /// Another machine needs `cert_path`. Defaults to Docker's standard socket.
    host: Option<String>,
    /// Directory with `ca.pem`, and with `cert.pem` and `key.pem` if the Engine asks for a
    /// client certificate: the connection to `tcp://HOST:PORT` then uses TLS. Read once, at
    /// startup. If the variable `DOCKER_TLS_VERIFY` is set, it defaults to `~/.docker`.
    #[schemars(extend("x-write" = "the path of a directory"))]
    cert_path: Option<PathBuf>,
    /// GPUs of the Engine's machine that runners of pools with a number in `gpus` get for
    /// themselves: IDs or UUIDs as `nvidia-smi -L` prints them, or CDI names such as
    /// `nvidia.com/gpu=0`. Read once, at startup.
    host_gpus: Vec<String>,
    /// Memory of the Engine's machine, in MiB, that runners leave to everything else. If you set it,
    /// 0 included, launches wait while the `memory_mib` of all runners, with `dind` twice, would be
    /// more than the rest. Runners without a limit count as nothing. Has no effect on other providers.
    /// Read once, at startup.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    reserve_memory_mib: Option<u64>,
    /// The same for CPUs and `cpus`.
    #[schemars(range(min = 0.0, max = 4096.0))]
    reserve_cpus: Option<f64>,
    /// Launches wait while the file system of the Engine's data directory has less than this free,
    /// in MiB; 0 never waits. It has no effect if the sidecar cannot see that directory, and on
    /// other providers. Read once, at startup.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    reserve_disk_mib: u64,
}

/// How the containers of a pool are created.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Container {
    /// Image of the runner. The tag defaults to `latest`.
    pub runner_image: String,
    /// When to pull images: `missing` pulls an image that is not present, `always` pulls
    /// before each launch, `never` does not pull.
    pub pull_policy: PullPolicy,
    /// Hours after which the registry is asked in the background whether a tag names a newer
    /// image; 0 never asks. Launches go on with the image that is present. Images with a digest,
    /// images built on this machine and pools with `pull_policy = "never"` are left alone. It has an
    /// effect with the provider `docker` only.
    #[schemars(range(min = 0, max = 8_760))]
    pub refresh_hours: u32,
    /// Command and arguments of the container. An empty list uses the image's command.
    /// Defaults to `/home/runner/run.sh` with the contract `jit`, and to the image's command
    /// with `registration-token`.
    pub command: Option<Vec<String>>,
    /// Docker access for jobs: `none`; `socket` mounts the socket of the host's Docker
    /// Engine, which gives jobs full control of the host; `dind` starts a separate Engine
    /// for each runner. That Engine shares the runner's network, work folder and `volumes`
    /// and is removed with it. Jobs with `container:` or `services:` need `dind`.
    pub docker: DockerAccess,
    /// Image of the Engine that `docker = "dind"` starts. It must contain `dockerd` and
    /// `docker`.
    pub dind_image: String,
    /// Container runtime for that Engine, such as `sysbox-runc`. If not set, the Engine runs
    /// as a privileged container, and a job can take over the host.
    pub dind_runtime: Option<String>,
    /// With `dind`: URLs of mirrors of Docker Hub, such as `http://172.17.0.1:5000`, that this
    /// Engine asks before Docker Hub. Only images of Docker Hub come from a mirror.
    #[schemars(extend("x-write" = "a list of URLs such as [\"https://mirror.example.com\"]"))]
    pub registry_mirrors: Vec<String>,
    /// With `dind`: registries, as `HOST[:PORT]`, or networks such as `10.0.0.0/8`, to which this
    /// Engine also speaks without TLS or with a certificate that it cannot check. A mirror with
    /// `http://` need not be listed.
    pub insecure_registries: Vec<String>,
    /// With `dind`: further arguments of `dockerd`, such as `--mtu=1400`.
    pub dind_args: Vec<String>,
    /// Keeps the tools that actions such as `setup-node` install, from job to job, in a volume at
    /// `/opt/hostedtoolcache`: `none`; `repository` for later jobs of the same repository, which
    /// needs `scope = "repository"`; `pool` for all jobs of the pool, whose repositories then trust
    /// each other. A volume belongs to one runner at a time, so that no job replaces a tool that
    /// another one is using.
    pub tool_cache: ToolCache,
    /// Size of a tool cache from which on it is removed, in MiB, once no runner uses it.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub tool_cache_max_mib: u64,
    /// Age at which a tool cache is removed, in days, once no runner uses it.
    #[schemars(range(min = 1, max = 365))]
    pub tool_cache_days: u32,
    /// Script that runs in the runner before each job: a `.sh` or `.ps1` file of up to 1 MiB
    /// on the sidecar's machine. If it fails, the job fails. Read once, at startup.
    /// <https://docs.github.com/en/actions/hosting-your-own-runners/managing-self-hosted-runners/running-scripts-before-or-after-a-job>
    #[schemars(extend("x-write" = "the path of a .sh or .ps1 script"))]
    pub job_started_script: Option<PathBuf>,
    /// Script that runs after the last step of each job, like `job_started_script`.
    #[schemars(extend("x-write" = "the path of a .sh or .ps1 script"))]
    pub job_completed_script: Option<PathBuf>,
    /// Additional environment variables of the runner's container.
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, SecretString>,
    /// Name of the Docker network to connect to. Defaults to Docker's default bridge; with
    /// `dind`, each runner gets its own network. Docker allows about 30 such networks,
    /// unless you configure its `default-address-pools`.
    pub network: Option<String>,
    /// IP addresses of DNS servers.
    pub dns: Vec<String>,
    /// Additional entries for `/etc/hosts`, as `HOST:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Hosts that jobs may connect to: `github.com`, or `*.example.com` for all names below one. An
    /// entry permits HTTPS on port 443 and HTTP on port 80; with a port, as in
    /// `registry.example.com:5000`, either of them on that port instead. If you set this, runners
    /// stand in a network of their own whose only way out is an Envoy that the sidecar starts for
    /// the pool, and names are resolved there, with `dns` and `extra_hosts`. Private, link-local and
    /// metadata addresses stay closed, whatever a name resolves to. Unrestricted if empty.
    pub egress: Vec<String>,
    /// `enforce` refuses connections to hosts that `egress` does not name. `observe` permits them
    /// and reports each as one that would be refused; `egress` may then be empty.
    pub egress_mode: EgressMode,
    /// Image of the Envoy that checks connections of pools with `egress`.
    pub egress_image: String,
    /// CPU limit; `1.5` means one and a half CPUs. Unlimited if not set. With `dind`, the
    /// limits `cpus`, `memory_mib` and `pids` apply to the runner and to its Engine
    /// separately.
    #[schemars(range(min = 0.01, max = 4096.0))]
    pub cpus: Option<f64>,
    /// Memory limit in MiB. Unlimited if not set.
    #[schemars(range(min = 6, max = 1_073_741_824))]
    pub memory_mib: Option<u64>,
    /// Maximum number of processes and threads. Unlimited if not set.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i64>,
    /// Size of `/dev/shm` in MiB. Defaults to Docker's 64.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub shm_mib: Option<u64>,
    /// Resource limits of each process, as `NAME=SOFT[:HARD]`, such as `nofile=65536`. -1
    /// means unlimited.
    pub ulimits: Vec<String>,
    /// User to run as: `USER` or `USER:GROUP`, by name or ID. Defaults to the image's user.
    pub user: Option<String>,
    /// Linux capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Linux capabilities to add, such as `SYS_PTRACE`.
    pub cap_add: Vec<String>,
    /// Allow programs such as `sudo` to gain privileges.
    pub allow_new_privileges: bool,
    /// Container runtime configured in the Docker Engine, such as `runsc` or
    /// `sysbox-runc`. Defaults to the Engine's default runtime. With the provider `kubernetes`, the
    /// name of a RuntimeClass.
    pub runtime: Option<String>,
    /// Devices of the machine, as `/PATH[:/PATH-IN-CONTAINER][:PERMISSIONS]` with permissions of
    /// `r`, `w` and `m`, such as `/dev/kvm` or `/dev/fuse:rwm`; or by CDI names such as
    /// `vendor.com/class=name`, if the Engine knows the Container Device Interface. With `dind`,
    /// the runner's Engine has them as well.
    pub devices: Vec<String>,
    /// GPUs of each runner: `"all"`; a list of IDs, UUIDs or CDI names, which all runners of the
    /// pool share; or a number of `docker.host_gpus`, which no other runner has at the same time.
    /// With the provider `kubernetes`, a number of the resource `nvidia.com/gpu`.
    /// NVIDIA's need the NVIDIA Container Toolkit on the machine; GitHub's image needs no other
    /// setting for them.
    #[schemars(
        with = "serde_json::Value",
        extend("x-write" = "\"all\", a number of GPUs from 1, or a list of IDs such as [\"0\", \"1\"]")
    )]
    pub gpus: Option<Gpus>,
    /// Platform of the image, such as `linux/arm64`. Defaults to the Engine's platform.
    pub platform: Option<String>,
    /// Volumes and host directories to mount, as `SOURCE:DESTINATION[:OPTIONS]`. With the provider
    /// `kubernetes`, a volume is a persistent volume claim, and the only options are `ro` and `rw`.
    pub volumes: Vec<String>,
    /// In-memory file systems to mount, as `/PATH[:OPTIONS]`.
    pub tmpfs: Vec<String>,
    /// Docker log driver. Defaults to the Engine's default log driver.
    pub log_driver: Option<String>,
    /// Options of the log driver, such as `max-size = "10m"`.
    pub log_options: BTreeMap<String, String>,
    /// Run an init process in the container that reaps orphaned processes.
    pub init: bool,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            runner_image: "ghcr.io/actions/actions-runner:latest".into(),
            pull_policy: PullPolicy::Missing,
            refresh_hours: 24,
            command: None,
            docker: DockerAccess::None,
            dind_image: "docker:dind".into(),
            dind_runtime: None,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            dind_args: Vec::new(),
            tool_cache: ToolCache::None,
            tool_cache_max_mib: 10_240,
            tool_cache_days: 14,
            job_started_script: None,
            job_completed_script: None,
            env: BTreeMap::new(),
            network: None,
            dns: Vec::new(),
            extra_hosts: Vec::new(),
            egress: Vec::new(),
            egress_mode: EgressMode::Enforce,
            egress_image: "envoyproxy/envoy:distroless-v1.40.2".into(),
            cpus: None,
            memory_mib: None,
            pids: None,
            shm_mib: None,
            ulimits: Vec::new(),
            user: None,
            cap_drop: vec!["ALL".into()],
            cap_add: Vec::new(),
            allow_new_privileges: false,
            runtime: None,
            devices: Vec::new(),
            gpus: None,
            platform: None,
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            log_driver: None,
            log_options: BTreeMap::new(),
            init: false,
        }
    }
}

impl Container {
    /// Whether an Envoy checks what jobs connect to.
    pub(crate) fn has_egress(&self) -> bool {
        !self.egress.is_empty() || self.egress_mode == EgressMode::Observe
    }
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PullPolicy {
    Missing,
    Always,
    Never,
}

/// The Docker Engine that jobs can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DockerAccess {
    None,
    Socket,
    Dind,
}

/// What happens to connections to hosts that a pool's `egress` does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EgressMode {
    Enforce,
    Observe,
}

/// How a container registers as a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistrationMethod {
    Jit,
    RegistrationToken,
}

/// Where the runners of a pool are registered.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "plan::Scope", rename_all = "kebab-case")]
enum Scope {
    Repository,
    Organization,
    Enterprise,
}

/// What a pool does with jobs of pull requests from forks.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "plan::Forks", rename_all = "kebab-case")]
enum Forks {
    Allow,
    Refuse,
    Only,
}

/// Default settings of the runners of every pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Runner {
    /// Where runners run: `docker`, on the Docker Engine of `[docker]`; `swarm`, on the nodes of
    /// `[swarm]`; or `kubernetes`, as pods in the cluster of `[kubernetes]`. The last two choose a
    /// node that has the pool's `cpus` and `memory_mib` free.
    pub provider: ProviderName,
    /// With `swarm`: constraints that a node must meet, such as `node.labels.disk==ssd`.
    /// <https://docs.docker.com/reference/cli/docker/service/create/#constraint>
    /// With `kubernetes`: labels that a node must have or must not have, such as `disk==ssd` or
    /// `disk!=hdd`.
    pub placement: Vec<String>,
    /// With `swarm` or `kubernetes`: node labels over whose values runners are spread evenly, such as
    /// `node.labels.rack` or `topology.kubernetes.io/zone`.
    pub spread_over: Vec<String>,
    /// With `kubernetes`: a YAML or JSON file with the `metadata` and `spec` of a pod, for everything
    /// that has no setting here, such as tolerations. What edgerunner sets itself takes precedence.
    /// The runner's container is named `runner`. Read once, at startup.
    #[schemars(extend("x-write" = "the path of a YAML or JSON file"))]
    pub pod_template: Option<PathBuf>,
    /// Labels that jobs can request with `runs-on`, up to 256 characters each. `self-hosted`
    /// is always included. Defaults to `self-hosted`, `linux` and the machine's architecture.
    pub labels: Vec<String>,
    /// Where runners are registered: `repository`, `organization` or `enterprise`.
    #[serde(with = "Scope")]
    pub scope: plan::Scope,
    /// Repositories to serve, as `OWNER/NAME`. `*` matches any characters within either part,
    /// as in `acme-*/app`. An empty list serves all repositories.
    pub repositories: Vec<String>,
    /// Name of the runner group in an organization or enterprise. Defaults to the group
    /// Default, the only one that a repository has.
    pub group: Option<String>,
    /// ID of the runner group, instead of its name.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub group_id: Option<u64>,
    /// How a container registers as a runner: `jit` passes it a just-in-time configuration
    /// for one job; `registration-token` passes a registration token in environment
    /// variables, for images that register themselves.
    pub contract: RegistrationMethod,
    /// Work folder of jobs: an absolute path, or one relative to the runner's directory.
    pub work_folder: String,
    /// Maximum number of runners at a time, in any state.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: usize,
    /// Number of idle runners to keep ready, for each repository or organization that
    /// `repositories` names.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_idle: usize,
    /// Number of runners to keep parked, for each repository or organization that `repositories`
    /// names: registered, with their containers started, but waiting in front of their command. A
    /// job wakes one in place of a launch. Parked runners do not count in `max`. They need the
    /// contract `jit` and the provider `docker`, and neither `egress` nor a number in `gpus`.
    #[schemars(range(min = 0, max = 1_000))]
    pub parked: usize,
    /// Time after which a parked runner is replaced, in seconds. GitHub removes a runner that has
    /// not connected within a day.
    #[schemars(range(min = 60, max = 72_000))]
    pub parked_timeout_seconds: u32,
    /// Times of the week with a different `min_idle`. The first schedule that matches the
    /// current time applies; if none matches, `min_idle` applies.
    #[schemars(extend("x-write" = "a list of tables, each with days, hours, time_zone and min_idle"))]
    pub schedules: Vec<Schedule>,
    /// If several pools match a job, the one with the highest priority runs it, then the one
    /// with the fewest labels. While that one is full, drained or failing, the next one does.
    #[schemars(range(min = -1_000, max = 1_000))]
    pub priority: i32,
    /// What jobs may ask for by labels of the form `key=value`, such as `cpu=4`. Workflow authors
    /// then choose the size of machines, within these limits. GitHub gives a runner that was
    /// launched so only to jobs with the same such labels. Idle and parked runners have none.
    #[schemars(extend("x-write" = "a table such as { cpu = { min = 1, max = 8 } }"))]
    pub label_parameters: LabelParameters,
    /// Run jobs that request no label.
    pub jobs_without_labels: bool,
    /// Run only jobs that request one of `labels` besides `self-hosted`, so that a special pool
    /// does not run jobs that request only `self-hosted`.
    pub require_labels: bool,
    /// Run jobs of public repositories, in which anyone may propose code to run. A repository counts
    /// as public unless GitHub reports that it is private or internal.
    pub public_repositories: bool,
    /// What to do with jobs of pull requests from forks: `allow` runs them like any other job,
    /// `refuse` does not run them, `only` runs no others. For the last two, GitHub is asked about
    /// the run of each job, which needs the permission Actions: read; the job waits for the answer.
    #[serde(with = "Forks")]
    pub forks: plan::Forks,
    /// Timeout of a launch (image pull, credentials, container), in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub provisioning_timeout_seconds: u32,
    /// Timeout for a started container to come online at GitHub, in seconds. GitHub is first
    /// asked after half of it, or after 15 seconds if that is sooner.
    #[schemars(range(min = 20, max = 86_400))]
    pub starting_timeout_seconds: u32,
    /// Time after which an idle runner that is not needed is removed, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_timeout_seconds: u32,
    /// Timeout of a job, in seconds. GitHub cancels any job after 5 days.
    #[schemars(range(min = 1, max = 432_000))]
    pub job_timeout_seconds: u32,
    /// Time that a container gets to stop before it is killed, in seconds.
    #[schemars(range(min = 0, max = 3_600))]
    pub stop_grace_seconds: u32,
}

impl Default for Runner {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            provider: ProviderName::Docker,
            placement: Vec::new(),
            spread_over: Vec::new(),
            pod_template: None,
            labels: ["self-hosted", "linux", architecture].map(str::to_owned).into(),
            scope: plan::Scope::Repository,
            repositories: Vec::new(),
            group: None,
            group_id: None,
            contract: RegistrationMethod::Jit,
            work_folder: "_work".into(),
            max: 10,
            min_idle: 0,
            parked: 0,
            parked_timeout_seconds: 43_200,
            schedules: Vec::new(),
            priority: 0,
            label_parameters: LabelParameters::default(),
            jobs_without_labels: false,
            require_labels: false,
            public_repositories: false,
            forks: plan::Forks::Allow,
            provisioning_timeout_seconds: 300,
            starting_timeout_seconds: 120,
            idle_timeout_seconds: 300,
            job_timeout_seconds: 21_600,
            stop_grace_seconds: 10,
        }
    }
}

/// What jobs may ask for by their labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LabelParameters {
    /// Limits of the label `cpu=N`: whole CPUs in place of `cpus`, for the runner and again for its
    /// own Docker Engine.
    #[schemars(extend("x-write" = "a table such as { min = 1, max = 8 }"))]
    pub cpu: Option<Range>,
    /// Limits of the label `memory_gib=N`: whole GiB in place of `memory_mib`, for the runner and
    /// again for its own Docker Engine.
    #[schemars(extend("x-write" = "a table such as { min = 1, max = 32 }"))]
    pub memory_gib: Option<Range>,
    /// Images that the label `image=NAME` may name in place of `runner_image`.
    pub image: Vec<String>,
    /// Accept the label `run=${{ github.run_id }}`: of jobs with such a label, only those of the same
    /// workflow run may use the runner.
    pub run: bool,
}

/// The least and the most that a job may ask for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Range {
    /// The least that may be asked for.
    #[schemars(range(min = 1, max = 65_536))]
    pub min: u32,
    /// The most that may be asked for.
    #[schemars(range(min = 1, max = 65_536))]
    pub max: u32,
}

/// Times of the week with a different `min_idle`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Days on which the schedule starts: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or
    /// ranges such as `mon-fri`. Every day if empty.
    pub days: Vec<String>,
    /// Start and end time, as `HH:MM-HH:MM` in `time_zone`. If the end is earlier than the
    /// start, it is on the next day. Defaults to the whole day.
    pub hours: Option<String>,
    /// Time zone name, such as `Europe/Berlin`. Defaults to `UTC`.
    pub time_zone: String,
    /// Number of idle runners to keep ready at these times.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_idle: Option<usize>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { days: Vec::new(), hours: None, time_zone: "UTC".into(), min_idle: None }
    }
}

/// Settings for all pools together.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scheduler {
    /// Name of this installation: 1 to 20 characters of `a` to `z`, `0` to `9` and `-`. It is
    /// the prefix of every runner's name and a label of every container. Installations that
    /// share a Docker Engine, a repository, an organization or an enterprise need different
    /// names.
    pub instance: String,
    /// Maximum number of runners at a time in all pools together. Unlimited if not set.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: Option<usize>,
    /// Maximum number of jobs of one repository at a time. Unlimited if not set.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_repository: Option<usize>,
    /// Which job gets the next place, among pools of one priority. `fair`: one of the repository
    /// (with `scope`, of the organization or enterprise) that has the fewest runners, then the one
    /// that waits longest. `oldest`: the one that waits longest.
    #[serde(with = "Order")]
    pub order: plan::Order,
    /// Whether GitHub is asked to run jobs again that failed because their runner was lost: its
    /// machine or its container is gone, or its memory was used up. Once for each run, when all of
    /// its jobs are over. Needs the permission *Actions: write*. A job that cannot run twice, such as
    /// a deployment, may then do so.
    pub rerun_lost: bool,
    /// Time that launches in progress get to finish when the sidecar stops, in seconds.
    #[schemars(range(min = 0, max = 3_600))]
    pub shutdown_grace_seconds: u32,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            instance: "edgerunner".into(),
            max: None,
            max_per_repository: None,
            order: plan::Order::Fair,
            rerun_lost: false,
            shutdown_grace_seconds: 30,
        }
    }
}

/// See [`Scheduler::order`].
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "plan::Order", rename_all = "kebab-case")]
enum Order {
    Fair,
    Oldest,
}

/// The log, written to standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `error`, `warn` (or `warning`), `info`, `debug` or `trace`. You can set it for single modules, as in
    /// `info,edgerunner::provider=debug`.
    pub level: String,
    /// `human` or `json`. `auto` means `human` in a terminal and `json` otherwise.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    Auto,
    Human,
    Json,
}

/// OpenTelemetry traces, from the webhook delivery to the started container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Traces {
    /// OTLP/gRPC endpoint of a collector, such as `http://127.0.0.1:4317`, without TLS.
    /// Traces are off if not set.
    #[schemars(extend("x-write" = "a URL such as http://127.0.0.1:4317"))]
    pub otlp_endpoint: Option<String>,
}

/// Messages to a receiver of your choice about what someone should look at: a runner that died during
/// its job, launches that fail, a runner version that ends within a week, sidecars of which none plans,
/// and jobs that no pool will run. There is at most one an hour about each cause.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Notifications {
    /// URL that each message is sent to as a POST, directly and not through a proxy. Nothing is sent
    /// if it is not set. Treat it as a secret if it contains one, as Slack's URLs do.
    #[schemars(
        with = "Option<String>",
        extend("writeOnly" = true, "x-write" = "a URL such as https://hooks.example.com/edgerunner")
    )]
    pub url: Option<SecretString>,
    /// File that contains the URL. Read once, at startup.
    #[schemars(extend("x-write" = "a file path"))]
    pub url_file: Option<PathBuf>,
    /// Secret that messages are signed with: the header `X-Edgerunner-Signature-256` has the
    /// HMAC-SHA256 of the body, as GitHub signs webhooks.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub secret: Option<SecretString>,
    /// File that contains the secret. Read once, at startup.
    #[schemars(extend("x-write" = "a file path"))]
    pub secret_file: Option<PathBuf>,
    /// Form of the messages: `json`, an object with `id`, `kind`, `subject`, `message`, `instance`,
    /// `at_ms` and `suppressed`; or `slack`, what Slack's incoming webhooks take, and those that
    /// copy them.
    pub format: NotificationFormat,
}

/// Form of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NotificationFormat {
    #[default]
    Json,
    Slack,
}

/// Everything that can be written in the file. Describes it to the schema; what is read of
/// it is `Config`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("required" = []))]
#[expect(dead_code, reason = "describes the file to the schema")]
pub(super) struct File {
    server: Server,
    store: Store,
    github: GitHub,
    missed_webhooks: MissedWebhooks,
    docker: DockerTable,
    swarm: Swarm,
    kubernetes: KubernetesConfig,
    #[schemars(extend("additionalProperties" = false))]
    runner: Runner,
    scheduler: Scheduler,
    log: Log,
    traces: Traces,
    notifications: Notifications,
    /// Credentials for certain repositories, organizations or enterprises. The first one
    /// whose targets match is used. If none matches, the credential of `[github]` is used.
    /// To share a target, list the same entry in the `targets` of several credentials on the
    /// same server: launches are spread over them.
    #[schemars(extend("x-write" = "a [[credentials]] table for each credential"))]
    credentials: Vec<Credential>,
    /// Webhooks whose secrets the filter gets over gRPC. Anyone who can reach the gRPC
    /// address can then read them: restrict access to it.
    #[schemars(extend("x-write" = "a [[webhooks]] table for each webhook"))]
    webhooks: Vec<Webhook>,
    /// Credentials of the registries that images are pulled from.
    #[schemars(extend("x-write" = "a [[registries]] table for each registry"))]
    registries: Vec<Registry>,
    /// Pools of runners, each with settings that override `[runner]` and `[docker]`. Without
    /// this table there is one pool, named `default`.
    #[schemars(extend("x-write" = "a [[pools]] table for each pool"))]
    pools: Vec<PoolTable>,
}

/// The Docker Engine, and default settings of the containers of every pool.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes [docker] to the schema")]
struct DockerTable {
    #[schemars(flatten)]
    engine: Docker,
    #[schemars(flatten)]
    container: Container,
}

/// A name, and the settings that differ from `[runner]` and `[docker]`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes a table of [[pools]] to the schema")]
struct PoolTable {
    /// Unique name: 1 to 30 characters of `a` to `z`, `0` to `9` and `-`.
    name: String,
    #[schemars(flatten)]
    runner: Runner,
    #[schemars(flatten)]
    container: Container,
}
