//! The request that creates a runner's container, and the files put into it.

use std::net::Ipv4Addr;

use bollard::models::{ContainerCreateBody, HostConfig, ResourcesUlimits};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    SOCKET,
    dind::{Dind, GROUP},
    host_config::{host_config, mib_to_bytes, non_empty},
    tool_cache::ToolCache,
};
use crate::{
    config::ulimit_of,
    provider::order::{ContainerSettings, Order, TOOL_CACHE_DIRECTORY},
};

/// The Docker Engine that jobs can use, ready for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    None,
    /// The one that runs the runner.
    Host {
        socket: String,
        group: u32,
    },
    /// One for this runner alone.
    Dind(Dind),
}

/// The only way out of a runner's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpProxy {
    /// ID of the network.
    pub network: String,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Reserved for documentation, so nobody has it: in a network without a way out, Docker's own
/// resolver must not ask any other on behalf of jobs.
const NO_RESOLVER: &str = "192.0.2.1";
/// Hosts that are not reached by a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";
/// Where the `docker` command finds the proxy, which it then gives to each container of a job.
const DOCKER_CONFIG: &str = "/opt/edgerunner/docker";

impl HttpProxy {
    pub(super) fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }

    /// Programs read these variables in one case or the other.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let url = self.url();
        [("HTTP_PROXY", &*url), ("HTTPS_PROXY", &*url), ("NO_PROXY", NO_PROXY)]
            .into_iter()
            .flat_map(|(name, value)| {
                [(name.to_owned(), value.to_owned()), (name.to_lowercase(), value.to_owned())]
            })
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Puts a container into the network.
    pub(super) fn confine(&self, host: &mut HostConfig) {
        host.network_mode = Some(self.network.clone());
        host.dns = Some(vec![NO_RESOLVER.to_owned()]);
    }

    /// The configuration of the `docker` command.
    fn docker_config(&self) -> Vec<u8> {
        let url = self.url();
        let proxies = json!({"httpProxy": url, "httpsProxy": url, "noProxy": NO_PROXY});
        json!({"proxies": {"default": proxies}}).to_string().into_bytes()
    }
}

pub(super) fn runner(
    order: &Order,
    engine: &Engine,
    tool_cache: Option<&ToolCache>,
    proxy: Option<&HttpProxy>,
) -> ContainerCreateBody {
    let variables = order.env.iter();
    let mut env: Vec<String> =
        variables.map(|it| format!("{}={}", it.name, it.value.expose_secret())).collect();
    let mut host = runner_host_config(&order.settings);
    host.mounts = tool_cache.map(|cache| vec![cache.mount()]);
    if let Some(proxy) = proxy {
        let docker = matches!(engine, Engine::Dind(_))
            .then(|| ("DOCKER_CONFIG".to_owned(), DOCKER_CONFIG.to_owned()));
        // A pool may set its own NO_PROXY.
        let is_set = |name: &str| order.env.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let added = proxy.variables().chain(docker).filter(|(name, _)| !is_set(name));
        env.extend(added.map(|(name, value)| format!("{name}={value}")));
        proxy.confine(&mut host);
    }
    let mut mount = |bind: String| host.binds.get_or_insert_default().push(bind);
    match engine {
        Engine::None => {}
        Engine::Host { socket, group } => {
            mount(format!("{socket}:{SOCKET}"));
            host.group_add = Some(vec![group.to_string()]);
        }
        Engine::Dind(dind) => {
            dind.runner_binds().for_each(mount);
            host.group_add = Some(vec![GROUP.to_string()]);
            // A job finds the ports it publishes on localhost, as on GitHub's machines.
            host.network_mode = Some(format!("container:{}", dind.container()));
            (host.dns, host.extra_hosts) = (None, None);
        }
    }
    ContainerCreateBody {
        image: Some(order.image.clone()),
        cmd: non_empty(&order.command),
        env: Some(env),
        user: order.settings.user.clone(),
        labels: Some(order.labels.to_map()),
        tty: Some(false),
        open_stdin: Some(false),
        host_config: Some(host),
        ..Default::default()
    }
}

/// A tar archive to unpack at `/`; `None` if there are no files.
pub(super) fn archive(
    order: &Order,
    engine: &Engine,
    proxy: Option<&HttpProxy>,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut append = |path: &str, mut header: tar::Header, content: &[u8]| {
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), content)
    };
    for script in &order.scripts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        append(&script.path, header, &script.content)?;
    }
    let work_folder = match engine {
        Engine::Dind(dind) => Some(dind.work_folder()),
        Engine::None | Engine::Host { .. } => None,
    };
    let tool_cache = order.tool_cache.as_ref().map(|_| TOOL_CACHE_DIRECTORY);
    // A volume belongs to root at first; the runner's user is not known here.
    for directory in work_folder.into_iter().chain(tool_cache) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        append(directory, header, &[])?;
    }
    if let (Engine::Dind(_), Some(proxy)) = (engine, proxy) {
        // Jobs log in to registries there.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        append(DOCKER_CONFIG, header, &[])?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o666);
        append(&format!("{DOCKER_CONFIG}/config.json"), header, &proxy.docker_config())?;
    }
    if order.scripts.is_empty() && work_folder.or(tool_cache).is_none() {
        return Ok(None);
    }
    archive.into_inner().map(Some)
}

/// Neither a restart policy nor auto-removal: a runner serves one job, and its exit code and
/// log are read after it has ended.
fn runner_host_config(settings: &ContainerSettings) -> HostConfig {
    let ContainerSettings {
        shared,
        shm_mib,
        ulimits,
        // Outside of the host configuration.
        user: _,
        cap_drop,
        cap_add,
        allow_new_privileges,
        runtime,
        tmpfs,
        init,
    } = settings;
    HostConfig {
        shm_size: shm_mib.map(mib_to_bytes),
        ulimits: (!ulimits.is_empty())
            .then(|| ulimits.iter().filter_map(|text| ulimit(text)).collect()),
        cap_drop: non_empty(cap_drop),
        cap_add: non_empty(cap_add),
        security_opt: (!allow_new_privileges).then(|| vec!["no-new-privileges:true".to_owned()]),
        runtime: runtime.clone(),
        tmpfs: (!tmpfs.is_empty())
            .then(|| tmpfs.iter().map(|mount| path_and_options(mount)).collect()),
        init: Some(*init),
        ..host_config(shared)
    }
}

fn path_and_options(mount: &str) -> (String, String) {
    let (path, options) = mount.split_once(':').unwrap_or((mount, ""));
    (path.to_owned(), options.to_owned())
}

fn ulimit(text: &str) -> Option<ResourcesUlimits> {
    let (name, soft, hard) = ulimit_of(text)?;
    Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

#[cfg(test)]
mod tests {
    use bollard::models::{DeviceMapping, DeviceRequest};
    use secrecy::SecretString;

    use super::*;
    use crate::{
        config::{
            Config, Container, DockerAccess, EgressMode, Gpus, PullPolicy, Registry,
            ToolCache as ToolCacheSetting,
        },
        provider::{
            labels::{Labels, Parked, ParkedContainer},
            order::{Images, JobEngine, Script, ToolCacheSettings},
        },
    };

    fn order(container: Container, env: Vec<(String, SecretString)>) -> Order {
        let mut pool = Config::load(None, &|_| None).unwrap().pools.remove(0);
        pool.container = container;
        let images = Images::new(&pool.container, &[]);
        Order::new(Labels::default(), images, &pool, env, 17)
    }

    fn default_order() -> Order {
        order(Container::default(), Vec::new())
    }

    #[test]
    fn the_default_is_confined_and_leaves_something_to_read() {
        let body = runner(&default_order(), &Engine::None, None, None);
        assert_eq!(body.image.as_deref(), Some("ghcr.io/actions/actions-runner:latest"));
        assert_eq!(body.cmd.unwrap(), ["/home/runner/run.sh"]);
        assert_eq!((body.tty, body.open_stdin), (Some(false), Some(false)));
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.cap_add, None);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
        assert_eq!(host.restart_policy, None);
        assert_eq!(host.auto_remove, None);
        assert_eq!(host.privileged, None);
        assert_eq!((host.binds, host.group_add), (None, None));
        assert_eq!((host.ulimits, host.log_config), (None, None));
        assert_eq!((host.devices, host.device_requests, host.mounts), (None, None, None));
    }

    #[test]
    fn without_a_command_the_image_has_its_own() {
        let container = Container { command: Some(Vec::new()), ..Container::default() };
        assert_eq!(runner(&order(container, Vec::new()), &Engine::None, None, None).cmd, None);
    }

    /// Those of the order below.
    fn has_devices(host: &HostConfig) {
        let mapping = |on_host: &str, in_container: &str, permissions: &str| DeviceMapping {
            path_on_host: Some(on_host.to_owned()),
            path_in_container: Some(in_container.to_owned()),
            cgroup_permissions: Some(permissions.to_owned()),
        };
        let expected =
            [mapping("/dev/fuse", "/dev/fuse", "rw"), mapping("/dev/a", "/dev/b", "rwm")];
        assert_eq!(host.devices.as_ref().unwrap()[..], expected);
        let cdi = DeviceRequest {
            driver: Some("cdi".into()),
            device_ids: Some(vec!["v.com/c=n".into(), "nvidia.com/gpu=1".into()]),
            ..Default::default()
        };
        let gpu = DeviceRequest {
            device_ids: Some(vec!["GPU-7".into()]),
            capabilities: Some(vec![vec!["gpu".into()]]),
            ..Default::default()
        };
        assert_eq!(host.device_requests.as_ref().unwrap()[..], [cdi, gpu]);
    }

    #[test]
    fn all_gpus_are_requested_without_naming_one() {
        let container = Container { gpus: Some(Gpus::All), ..Container::default() };
        let body = runner(&order(container, Vec::new()), &Engine::None, None, None);
        let requests = body.host_config.unwrap().device_requests.unwrap();
        let all = DeviceRequest {
            count: Some(-1),
            capabilities: Some(vec![vec!["gpu".into()]]),
            ..Default::default()
        };
        assert_eq!(requests, [all]);
    }

    /// Each setting differs from its default, and none is left out here: a new one must be
    /// added, and then reach Docker.
    #[test]
    fn every_setting_survives_json_and_reaches_docker() {
        let settings = Container {
            runner_image: "ghcr.io/acme/runner:2".into(),
            pull_policy: PullPolicy::Always,
            // Of the image that is present, so no node needs it.
            refresh_hours: 1,
            command: Some(vec!["/run.sh".into(), "--once".into()]),
            docker: DockerAccess::Dind,
            dind_image: "acme/dind:3".into(),
            dind_runtime: Some("sysbox-runc".into()),
            registry_mirrors: vec!["http://mirror:5000".into()],
            insecure_registries: vec!["registry:5000".into()],
            dind_args: vec!["--mtu=1400".into()],
            tool_cache: ToolCacheSetting::Pool,
            tool_cache_max_mib: 5,
            tool_cache_days: 3,
            // Read when the configuration is loaded.
            job_started_script: Some("/etc/started.sh".into()),
            job_completed_script: Some("/etc/completed.sh".into()),
            env: [("TOKEN".into(), "s3cret=".into())].into(),
            network: Some("build".into()),
            dns: vec!["10.0.0.2".into()],
            extra_hosts: vec!["cache:10.0.0.1".into()],
            egress: vec!["github.com".into()],
            egress_mode: EgressMode::Observe,
            egress_image: "acme/envoy:4".into(),
            cpus: Some(1.5),
            memory_mib: Some(512),
            pids: Some(100),
            shm_mib: Some(64),
            ulimits: vec!["nofile=1024:2048".into(), "core=-1".into()],
            user: Some("1001:1001".into()),
            cap_drop: vec!["NET_RAW".into()],
            cap_add: vec!["SYS_PTRACE".into()],
            allow_new_privileges: true,
            runtime: Some("runsc".into()),
            devices: vec!["/dev/fuse:rw".into(), "/dev/a:/dev/b".into(), "v.com/c=n".into()],
            gpus: Some(Gpus::Number(2)),
            platform: Some("linux/arm64".into()),
            volumes: vec!["/cache:/cache:ro".into()],
            tmpfs: vec!["/tmp:size=64m,exec".into(), "/run".into()],
            log_driver: Some("local".into()),
            log_options: [("max-size".into(), "10m".into())].into(),
            init: true,
        };
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("started.sh");
        std::fs::write(&script, b"\xffexit 0").unwrap();
        let script = script.display().to_string();
        let environment =
            move |name: &str| (name == "DOCKER_JOB_STARTED_SCRIPT").then(|| script.clone());
        let mut pool = Config::load(None, &environment).unwrap().pools.remove(0);
        pool.container = settings;
        pool.work_folder = "work".into();
        pool.stop_grace = std::time::Duration::from_secs(77);
        let labels = Labels {
            instance: "edge".into(),
            pool: "default".into(),
            runner: "edge-1".into(),
            host: "github.com".into(),
            target: "org:acme".into(),
            launched_unix_ms: 17,
            devices: vec!["GPU-7".into(), "nvidia.com/gpu=1".into()],
            parameters: "cpu=4".into(),
            parked: Some(Parked { container: ParkedContainer::Waiting, revision: 7 }),
        };
        let mut registry = Registry::default();
        registry.host = "ghcr.io".into();
        registry.username = "ci".into();
        registry.password = Some("sesame".into());
        let images = Images::new(&pool.container, &[registry]);
        let env = pool.container.env.clone().into_iter().collect();
        let order = Order::new(labels.clone(), images, &pool, env, 17);

        let json = serde_json::to_string(&order).unwrap();
        let order: Order = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&order).unwrap(), json);

        assert_eq!(order.labels, labels);
        assert_eq!(order.images.names, ["ghcr.io/acme/runner:2", "acme/dind:3", "acme/envoy:4"]);
        let egress = order.egress.as_ref().unwrap();
        assert_eq!(
            (&*egress.hosts, egress.mode),
            (&["github.com".into()][..], EgressMode::Observe)
        );
        assert_eq!(egress.image, "acme/envoy:4");
        assert_eq!(order.images.platform.as_deref(), Some("linux/arm64"));
        assert_eq!(order.images.pull_policy, PullPolicy::Always);
        let login = order.images.login("ghcr.io/acme/runner:2").unwrap();
        assert_eq!((&*login.host, &*login.username), ("ghcr.io", "ci"));
        assert_eq!(login.password.as_ref().unwrap().expose_secret(), "sesame");
        assert_eq!(order.stop_grace.as_secs(), 77);
        assert_eq!(order.scripts[0].content, b"\xffexit 0");

        let expected = ToolCacheSettings { across_repositories: true, max_mib: 5, days: 3 };
        assert_eq!(order.tool_cache, Some(expected));

        let body = runner(&order, &Engine::None, None, None);
        assert_eq!(body.image.as_deref(), Some("ghcr.io/acme/runner:2"));
        assert_eq!(body.cmd.unwrap(), ["/run.sh", "--once"]);
        let hook = "ACTIONS_RUNNER_HOOK_JOB_STARTED=/opt/edgerunner/job-started.sh";
        assert_eq!(
            body.env.unwrap(),
            ["TOKEN=s3cret=", hook, "RUNNER_TOOL_CACHE=/opt/hostedtoolcache"]
        );
        assert_eq!(body.user.as_deref(), Some("1001:1001"));
        assert_eq!(body.labels.unwrap(), labels.to_map());
        let host = body.host_config.unwrap();
        has_devices(&host);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.memory, Some(512 << 20));
        assert_eq!(host.pids_limit, Some(100));
        assert_eq!(host.shm_size, Some(64 << 20));
        let limits: Vec<_> =
            host.ulimits.unwrap().into_iter().map(|it| (it.name, it.soft, it.hard)).collect();
        let limit = |name: &str, soft, hard| (Some(name.to_owned()), Some(soft), Some(hard));
        assert_eq!(limits, [limit("nofile", 1024, 2048), limit("core", -1, -1)]);
        assert_eq!(host.network_mode.as_deref(), Some("build"));
        assert_eq!(host.extra_hosts.unwrap(), ["cache:10.0.0.1"]);
        assert_eq!(host.dns.unwrap(), ["10.0.0.2"]);
        assert_eq!(host.cap_drop.unwrap(), ["NET_RAW"]);
        assert_eq!(host.cap_add.unwrap(), ["SYS_PTRACE"]);
        assert_eq!(host.security_opt, None);
        assert_eq!(host.runtime.as_deref(), Some("runsc"));
        assert_eq!(host.binds.unwrap(), ["/cache:/cache:ro"]);
        let tmpfs = host.tmpfs.unwrap();
        assert_eq!(tmpfs["/tmp"], "size=64m,exec");
        assert_eq!(tmpfs["/run"], "");
        let log = host.log_config.unwrap();
        assert_eq!(log.typ.as_deref(), Some("local"));
        assert_eq!(log.config.unwrap()["max-size"], "10m");
        assert_eq!(host.init, Some(true));

        let JobEngine::Dind(settings) = &order.engine else { panic!("{order:?}") };
        let dind = Dind::new("edge-1", "/home/runner", &order.work_folder);
        let body = dind.to_body(&order, settings, None, None);
        let own = ["--registry-mirror=http://mirror:5000", "--insecure-registry=registry:5000"];
        assert_eq!(body.cmd.unwrap()[3..], [own[0], own[1], "--mtu=1400"]);
        assert_eq!(body.image.as_deref(), Some("acme/dind:3"));
        let host = body.host_config.unwrap();
        assert_eq!(host.runtime.as_deref(), Some("sysbox-runc"));
        has_devices(&host);
        assert!(host.binds.unwrap().contains(&"edge-1-work:/home/runner/work".to_owned()));
    }

    #[test]
    fn an_order_of_a_newer_version_is_refused() {
        let mut order = serde_json::to_value(default_order()).unwrap();
        order["settings"]["later"] = serde_json::json!(["/dev/kvm"]);
        let error = serde_json::from_value::<Order>(order).unwrap_err().to_string();
        assert!(error.contains("unknown field `later`"), "{error}");
    }

    #[test]
    fn the_socket_comes_with_its_group() {
        let engine = Engine::Host { socket: "/run/my.sock".into(), group: 998 };
        let host = runner(&default_order(), &engine, None, None).host_config.unwrap();
        assert_eq!(host.binds.unwrap(), ["/run/my.sock:/var/run/docker.sock"]);
        assert_eq!(host.group_add.unwrap(), ["998"]);
    }

    fn proxy() -> HttpProxy {
        HttpProxy { network: "0f".into(), address: Ipv4Addr::new(172, 30, 0, 254), port: 3128 }
    }

    #[test]
    fn a_runner_with_egress_has_one_way_out_and_no_resolver() {
        let container = Container { dns: vec!["10.0.0.2".into()], ..Container::default() };
        let env = vec![("no_proxy".to_owned(), "cache.example".to_owned().into())];
        let body = runner(&order(container, env), &Engine::None, None, Some(&proxy()));
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("0f"));
        assert_eq!(host.dns.unwrap(), [NO_RESOLVER]);
        let url = "http://172.30.0.254:3128";
        let mut expected = vec!["no_proxy=cache.example".to_owned()];
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            expected.push(format!("{name}={url}"));
        }
        assert_eq!(body.env.unwrap(), expected);
    }

    #[test]
    fn containers_of_a_job_with_egress_take_the_same_way() {
        let container = Container { docker: DockerAccess::Dind, ..Container::default() };
        let (order, proxy) = (order(container, Vec::new()), proxy());
        let dind = Dind::new("edge-1", "/home/runner", "_work");
        let body = {
            let JobEngine::Dind(settings) = &order.engine else { panic!("{order:?}") };
            dind.to_body(&order, settings, None, Some(&proxy))
        };
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("0f"));
        assert_eq!(host.dns.unwrap(), [NO_RESOLVER]);
        assert!(body.env.unwrap().contains(&format!("HTTPS_PROXY={}", proxy.url())));

        let engine = Engine::Dind(dind);
        let body = runner(&order, &engine, None, Some(&proxy));
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("container:edge-1-dind"));
        assert_eq!(host.dns, None);
        assert!(body.env.unwrap().contains(&format!("DOCKER_CONFIG={DOCKER_CONFIG}")));
        let archive = archive(&order, &engine, Some(&proxy)).unwrap().unwrap();
        let config = String::from_utf8_lossy(&archive).contains(r#""httpProxy":"http://172.30"#);
        assert!(config);
    }

    #[test]
    fn files_keep_their_modes_on_the_way() {
        let mut order = default_order();
        assert_eq!(archive(&order, &Engine::None, None).unwrap(), None);
        let settings = ToolCacheSettings { across_repositories: false, max_mib: 1, days: 1 };
        order.tool_cache = Some(settings);
        order.scripts.push(Script { path: "/opt/a.sh".into(), content: b"true".to_vec() });
        let engine = Engine::Dind(Dind::new("edge-1", "/home/runner", "_work"));
        let archive = archive(&order, &engine, None).unwrap().unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.size().unwrap())
            })
            .collect();
        let expected = [
            ("opt/a.sh", 0o755, 4),
            ("home/runner/_work", 0o777, 0),
            ("opt/hostedtoolcache", 0o777, 0),
        ];
        assert_eq!(entries, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
    }
}
