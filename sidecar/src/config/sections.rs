//! What can be written. The doc comments are the reference that users read:
//! meaning, unit, range.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{GrpcAddress, TlsFiles};
use edgerunner_scheduler::missed::WebhookId;
use edgerunner_scheduler::plan;

/// Addresses the sidecar listens on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Where the gRPC service listens that the filter calls: an address and port, or
    /// `unix:/PATH`, a socket that its group may use.
    #[schemars(
        with = "String",
        extend("x-write" = "an address and port such as 127.0.0.1:50051, or unix:/PATH")
    )]
    pub grpc_address: GrpcAddress,
    /// For mutual TLS, which takes this and the next two: file of the certificate that
    /// the gRPC service shows, PEM with its chain. Read anew for each connection.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub grpc_certificate_file: Option<PathBuf>,
    /// File of its private key, PEM.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub grpc_key_file: Option<PathBuf>,
    /// File of the CAs, PEM, that sign the certificates of those who may call it.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub grpc_client_ca_file: Option<PathBuf>,
    /// Address and port of the status page, metrics, health checks and API.
    #[schemars(extend("x-write" = "an address and port such as 127.0.0.1:8081"))]
    pub http_address: SocketAddr,
    /// Token that a caller of the API must bear to change something: `edgerunner drain`
    /// and `resume`. Nobody may if left out.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub api_token: Option<SecretString>,
    /// File that holds the API's token.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub api_token_file: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            grpc_address: GrpcAddress::Tcp((Ipv4Addr::LOCALHOST, 50051).into()),
            grpc_certificate_file: None,
            grpc_key_file: None,
            grpc_client_ca_file: None,
            http_address: (Ipv4Addr::LOCALHOST, 8081).into(),
            api_token: None,
            api_token_file: None,
        }
    }
}

impl Server {
    /// `None` without mutual TLS.
    pub(crate) fn grpc_tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.grpc_certificate_file.clone()?,
            key: self.grpc_key_file.clone()?,
            client_ca: self.grpc_client_ca_file.clone()?,
        })
    }
}

/// Where events, jobs and runners are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// File of the SQLite database; its directory must exist and be writable.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self { path: "/var/lib/edgerunner/edgerunner.db".into() }
    }
}

/// The GitHub that runners are registered at.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GitHub {
    /// Base URL of the REST API: `https://api.github.com`,
    /// `https://api.SUBDOMAIN.ghe.com`, or `https://HOST/api/v3` of a GitHub
    /// Enterprise Server.
    #[schemars(extend("x-write" = "a URL such as https://api.github.com"))]
    pub api_url: String,
    /// Base URL of the web pages, at which runners with the contract
    /// `registration-token` register. Follows from `api_url` if left out.
    #[schemars(extend("x-write" = "a URL such as https://github.com"))]
    pub web_url: Option<String>,
    /// Token that may register runners. Needed to serve, unless `[[credentials]]` cover
    /// all that the pools serve.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub token: Option<SecretString>,
    /// File that holds the token. Read anew for every call: it may be replaced at any time.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub token_file: Option<PathBuf>,
    /// Instead of a token: id or client id of a GitHub App, which finds its installations
    /// by itself.
    pub app_id: Option<String>,
    /// The App's private key, a PEM.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub app_private_key: Option<SecretString>,
    /// File that holds the App's private key, which may be replaced likewise.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub app_private_key_file: Option<PathBuf>,
    /// File of certificates, a PEM, of CAs that are trusted beside the system's: that of an
    /// Enterprise Server's certificate. Read at the start.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub ca_file: Option<PathBuf>,
    /// Proxy on the way to `api_url`, `http://[USER:PASSWORD@]HOST[:PORT]`; it must take
    /// `CONNECT`, and sees nothing but the host's name. As the variable `HTTPS_PROXY` says if
    /// left out; hosts in the variable `NO_PROXY` are reached without it.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub proxy_url: Option<SecretString>,
    /// File that holds the proxy's URL.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub proxy_url_file: Option<PathBuf>,
    /// Where GitHub sends webhooks to, the public URL, as
    /// `https://HOST/webhooks/github`. For commands that create a webhook, send a delivery
    /// or find out whether one arrives.
    #[schemars(extend("x-write" = "a URL such as https://hooks.example.com/webhooks/github"))]
    pub webhook_url: Option<String>,
    /// Secret of the webhook. The filter verifies signatures, not the sidecar: only the
    /// commands that need `webhook_url` need it.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub webhook_secret: Option<SecretString>,
    /// File that holds the webhook secret.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub webhook_secret_file: Option<PathBuf>,
    /// Time for one call to GitHub, to the end of its answer, in seconds.
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
            timeout_seconds: 10,
        }
    }
}

/// Looking for webhooks that never arrived: GitHub repeats none by itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MissedWebhooks {
    /// Has GitHub send again what failed, and looks up queued jobs. The credential needs the
    /// permission to read and write Webhooks (a GitHub App does not for its own) and to
    /// read Actions; what it may not see is left out.
    pub enabled: bool,
    /// Share of a credential's requests in an hour that may be spent on it. What GitHub
    /// answers with 304 costs nothing. The last tenth is always left to launches.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub budget_share: f64,
    /// Time between two looks at the same hook or repository, in seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub interval_seconds: u32,
    /// Age up to which failed deliveries are sent again, in hours. GitHub has them for 3
    /// days, but a job waits no longer than 24 hours for a runner.
    #[schemars(range(min = 1, max = 72))]
    pub look_back_hours: u32,
    /// Webhooks known before anything has come from them, by their paths in the REST API:
    /// `repos/OWNER/NAME/hooks/ID`, `orgs/LOGIN/hooks/ID`, or `app/hook` for a GitHub
    /// App's own. The others are learned from what arrives.
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
    pub(crate) fn hooks(&self) -> impl Iterator<Item = WebhookId> {
        self.hooks.iter().filter_map(|hook| hook.parse().ok())
    }
}

/// A webhook whose secrets the filter has from here and not from its environment.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Name of the hook in the filter's configuration; left out for the one without.
    pub name: String,
    /// Files that hold a secret each, 1 to 4, the current one first; those after it serve
    /// rotation and may be missing. Read anew whenever the filter asks.
    #[schemars(extend("x-write" = "the paths of files in brackets"))]
    pub secret_files: Vec<PathBuf>,
}

/// A credential for some targets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Credential {
    /// Unique name, which is shown where it fails: 1 to 30 of `a` to `z`, `0` to `9`
    /// and `-`.
    pub(super) name: Option<String>,
    /// What it serves: `OWNER/NAME`, a repository, where either part may be `*`;
    /// `OWNER`, an organization's own runners; `enterprise:SLUG`.
    pub(super) targets: Vec<String>,
    /// Token that may register runners there.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub(super) token: Option<SecretString>,
    /// File that holds the token, as `github.token_file`.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub(super) token_file: Option<PathBuf>,
    /// Instead of a token: id or client id of a GitHub App.
    pub(super) app_id: Option<String>,
    /// The App's private key, a PEM.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub(super) app_private_key: Option<SecretString>,
    /// File that holds the App's private key.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub(super) app_private_key_file: Option<PathBuf>,
    /// As `github.api_url`, which holds if left out.
    #[schemars(extend("x-write" = "a URL such as https://api.github.com"))]
    pub(super) api_url: Option<String>,
    /// As `github.web_url`. Follows from `api_url` if left out.
    #[schemars(extend("x-write" = "a URL such as https://github.com"))]
    pub(super) web_url: Option<String>,
    /// As `github.ca_file`, which holds if left out.
    #[schemars(extend("x-write" = "the path of a file"))]
    pub(super) ca_file: Option<PathBuf>,
}

/// What a registry of images wants to see.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// As images name it: `ghcr.io`, `registry.example.com:5000`; `docker.io` for
    /// images that name none.
    pub host: String,
    /// User to log in as.
    pub username: String,
    /// Password, or token in its place. Sent to this registry alone.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub password: Option<SecretString>,
    /// File that holds the password.
    #[schemars(extend("x-write" = "the path of a file"))]
    password_file: Option<PathBuf>,
}

/// The Docker Engine, and the containers of every pool that does not say
/// otherwise.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Docker {
    /// `unix:///path/to/docker.sock` or `tcp://HOST:PORT`. The usual socket if
    /// left out.
    pub host: Option<String>,
    #[schemars(flatten)]
    pub container: Container,
}

/// What a pool's containers are made of.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Container {
    /// Image of the runner. Without a tag or digest, `latest`.
    pub runner_image: String,
    /// When to pull images: `missing` if they are not there, `always` before
    /// each launch, or `never`.
    pub pull_policy: PullPolicy,
    /// Command and arguments. Empty: the image's own. If left out,
    /// `/home/runner/run.sh` with the contract `jit`, and the image's own with
    /// `registration-token`.
    pub command: Option<Vec<String>>,
    /// Docker for jobs. `none`; `socket`, the Engine's own socket, which hands jobs
    /// the whole host; or `dind`, an Engine for each runner alone, which shares its
    /// network, work folder and `volumes` and goes with it. Jobs with `container:` or
    /// `services:` need `dind`.
    pub docker: DockerAccess,
    /// Image of the Engine of `docker = "dind"`. It must have `dockerd` and `docker`.
    pub dind_image: String,
    /// Runtime of that Engine, such as `sysbox-runc`. If left out, it runs privileged:
    /// a job can then take over the host.
    pub dind_runtime: Option<String>,
    /// Script on the sidecar's machine, up to 1 MiB, that runs in the runner before
    /// each job: `.sh` or `.ps1`. If it fails, so does the job. Read once, at start.
    /// <https://docs.github.com/en/actions/hosting-your-own-runners/managing-self-hosted-runners/running-scripts-before-or-after-a-job>
    #[schemars(extend("x-write" = "the path of a script, .sh or .ps1"))]
    pub job_started_script: Option<PathBuf>,
    /// The same, after the last step of each job.
    #[schemars(extend("x-write" = "the path of a script, .sh or .ps1"))]
    pub job_completed_script: Option<PathBuf>,
    /// Environment variables beside those that register the runner.
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, SecretString>,
    /// Name of a Docker network. If left out, Docker's default bridge, or with `dind` a
    /// network for each runner alone; of these Docker has about 30 unless its
    /// `default-address-pools` say otherwise.
    pub network: Option<String>,
    /// Addresses of name servers.
    pub dns: Vec<String>,
    /// More lines for `/etc/hosts`, `HOST:ADDRESS` each.
    pub extra_hosts: Vec<String>,
    /// Limit on processors; `1.5` is one and a half. No limit if left out. With `dind`
    /// this and the next two hold for the runner and for its Engine, each.
    #[schemars(range(min = 0.01, max = 4096.0))]
    pub cpus: Option<f64>,
    /// Limit on memory in MiB. No limit if left out.
    #[schemars(range(min = 6, max = 1_073_741_824))]
    pub memory_mib: Option<u64>,
    /// Limit on processes and threads. No limit if left out.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i64>,
    /// Size of `/dev/shm` in MiB. Docker's 64 if left out.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub shm_mib: Option<u64>,
    /// Limits for each process, `NAME=SOFT[:HARD]` each, such as `nofile=65536`;
    /// -1 is none.
    pub ulimits: Vec<String>,
    /// User, or `USER:GROUP`, by name or number. The image's own if left out.
    pub user: Option<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Capabilities given back, such as `SYS_PTRACE`.
    pub cap_add: Vec<String>,
    /// Lets programs such as `sudo` raise their privileges.
    pub allow_new_privileges: bool,
    /// Runtime known to the Docker Engine, such as `runsc` or `sysbox-runc`.
    /// The Engine's default if left out.
    pub runtime: Option<String>,
    /// Platform of the image, such as `linux/arm64`. The Engine's own if left out.
    pub platform: Option<String>,
    /// Volumes and directories, `SOURCE:DESTINATION[:OPTIONS]` each.
    pub volumes: Vec<String>,
    /// Directories kept in memory, `/PATH[:OPTIONS]` each.
    pub tmpfs: Vec<String>,
    /// Docker's log driver. The Engine's default if left out.
    pub log_driver: Option<String>,
    /// Options of the log driver, such as `max-size = "10m"`.
    pub log_options: BTreeMap<String, String>,
    /// Puts a small init in front of the command, which reaps orphans.
    pub init: bool,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            runner_image: "ghcr.io/actions/actions-runner:latest".into(),
            pull_policy: PullPolicy::Missing,
            command: None,
            docker: DockerAccess::None,
            dind_image: "docker:dind".into(),
            dind_runtime: None,
            job_started_script: None,
            job_completed_script: None,
            env: BTreeMap::new(),
            network: None,
            dns: Vec::new(),
            extra_hosts: Vec::new(),
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
            platform: None,
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            log_driver: None,
            log_options: BTreeMap::new(),
            init: false,
        }
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

/// Which Docker Engine jobs can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DockerAccess {
    None,
    Socket,
    Dind,
}

/// How a container gets to be a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistrationMethod {
    Jit,
    RegistrationToken,
}

/// Where runners are registered.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "plan::Scope", rename_all = "kebab-case")]
enum Scope {
    Repository,
    Organization,
    Enterprise,
}

/// The runners of every pool that does not say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Runner {
    /// Labels that jobs may ask for, up to 256 characters each. `self-hosted`
    /// is always among them. The last default is the machine's architecture.
    pub labels: Vec<String>,
    /// Where runners are registered.
    #[serde(with = "Scope")]
    pub scope: plan::Scope,
    /// Repositories served, `OWNER/NAME` each; either part may be `*`. Empty:
    /// every repository.
    pub repositories: Vec<String>,
    /// Name of a runner group in an organization or enterprise. Default if left out,
    /// which is the only one that a repository has.
    pub group: Option<String>,
    /// Instead of its name, its id at GitHub.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub group_id: Option<u64>,
    /// How a container gets to be a runner: `jit` hands it a configuration for
    /// one job, `registration-token` fills the variables of images that
    /// register themselves.
    pub contract: RegistrationMethod,
    /// Folder, inside the runner's own, that jobs work in.
    pub work_folder: String,
    /// Most runners at once, whatever their state.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: usize,
    /// Runners kept waiting for work, at each repository or organization that
    /// `repositories` names.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_idle: usize,
    /// Hours of the week with another `min_idle`; the first that holds wins, and outside
    /// of all of them `min_idle` does.
    #[schemars(extend("x-write" = "a list of tables, each with days, hours, time_zone and min_idle"))]
    pub schedules: Vec<Schedule>,
    /// Among pools that match a job, the highest serves it.
    #[schemars(range(min = -1_000, max = 1_000))]
    pub priority: i32,
    /// Serve jobs that ask for no label at all.
    pub jobs_without_labels: bool,
    /// Time for a launch: pull, credentials, container. In seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub provisioning_timeout_seconds: u32,
    /// Time for a started container to appear at GitHub, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub starting_timeout_seconds: u32,
    /// Time after which a runner without work that is not needed goes, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_timeout_seconds: u32,
    /// Time for one job, in seconds. GitHub itself ends it after 5 days.
    #[schemars(range(min = 1, max = 432_000))]
    pub job_timeout_seconds: u32,
    /// Time between asking a container to stop and killing it, in seconds.
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
            labels: ["self-hosted", "linux", architecture].map(str::to_owned).into(),
            scope: plan::Scope::Repository,
            repositories: Vec::new(),
            group: None,
            group_id: None,
            contract: RegistrationMethod::Jit,
            work_folder: "_work".into(),
            max: 10,
            min_idle: 0,
            schedules: Vec::new(),
            priority: 0,
            jobs_without_labels: false,
            provisioning_timeout_seconds: 300,
            starting_timeout_seconds: 120,
            idle_timeout_seconds: 300,
            job_timeout_seconds: 21_600,
            stop_grace_seconds: 10,
        }
    }
}

/// Hours of the week at which another number of runners is kept idle.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Days it begins on: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or ranges such
    /// as `mon-fri`. Empty: every day.
    pub days: Vec<String>,
    /// From and to, `HH:MM-HH:MM`, by the clock at that place; if the end is the earlier
    /// one, it is on the next day. The whole day if left out.
    pub hours: Option<String>,
    /// Name of the time zone database, such as `Europe/Berlin`.
    pub time_zone: String,
    /// As the pool's own.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_idle: Option<usize>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { days: Vec::new(), hours: None, time_zone: "UTC".into(), min_idle: None }
    }
}

/// What holds for all pools together.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scheduler {
    /// Name of this installation: 1 to 20 of `a` to `z`, `0` to `9` and `-`.
    /// It begins the name of every runner and is written on every container;
    /// two installations that share a Docker Engine or a repository,
    /// organization or enterprise need different ones.
    pub instance: String,
    /// Most runners at once in all pools together. No limit if left out.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: Option<usize>,
    /// Most jobs of one repository at once. No limit if left out.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_repository: Option<usize>,
    /// Time for launches under way when the sidecar is told to stop, in seconds.
    #[schemars(range(min = 0, max = 3_600))]
    pub shutdown_grace_seconds: u32,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            instance: "edgerunner".into(),
            max: None,
            max_per_repository: None,
            shutdown_grace_seconds: 30,
        }
    }
}

/// What is logged, to standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, also for single parts:
    /// `info,edgerunner::docker=debug`.
    pub level: String,
    /// `human` or `json`; `auto` is `human` in a terminal and `json` elsewhere.
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

/// OpenTelemetry traces, from a webhook's delivery to the started container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Traces {
    /// Where a collector takes spans by OTLP over gRPC, as `http://127.0.0.1:4317`; without
    /// TLS. No traces if left out.
    #[schemars(extend("x-write" = "a URL such as http://127.0.0.1:4317"))]
    pub otlp_endpoint: Option<String>,
}

/// Runners that are alike: a name, and whatever differs from `[runner]` and
/// `[docker]`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes a table of [[pools]] to the schema")]
pub(super) struct Pool {
    /// Unique name: 1 to 30 of `a` to `z`, `0` to `9` and `-`.
    name: String,
    #[schemars(flatten)]
    runner: Runner,
    #[schemars(flatten)]
    container: Container,
}
