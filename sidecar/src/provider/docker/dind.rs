//! A Docker Engine for one runner alone: a container next to the runner's, volumes that both
//! see under the same paths, and a network.

use std::time::Duration;

use bollard::{
    errors::Error as Bollard,
    exec::{CreateExecOptions, StartExecOptions},
    models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, VolumeCreateRequest},
};
use tokio::time::{Instant, sleep};

use super::{
    DIND_SUFFIX, Docker, SOCKET, body::HttpProxy, dind_labels, error, from_bollard,
    host_config::host_config, tool_cache::ToolCache,
};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::Labels,
    order::{DindSettings, Order},
};

/// Owner of the socket: the group `docker` of GitHub's own image, and given to every runner.
pub(super) const GROUP: u32 = 123;
/// Where the runner is installed if its image does not say.
const RUNNER_DIRECTORY: &str = "/home/runner";

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// The shell's exit codes for a command that does not exist or cannot be executed.
const NO_COMMAND: [i64; 2] = [126, 127];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dind {
    runner: String,
    /// Where the runner is installed.
    directory: String,
    work_folder: String,
}

impl Dind {
    pub(super) fn new(runner: &str, directory: &str, work_folder: &str) -> Self {
        let directory = match directory.trim_end_matches('/') {
            "" => RUNNER_DIRECTORY,
            directory => directory,
        };
        let work_folder = match work_folder.starts_with('/') {
            true => work_folder.to_owned(),
            false => format!("{directory}/{work_folder}"),
        };
        Self { runner: runner.to_owned(), directory: directory.to_owned(), work_folder }
    }

    pub(super) fn container(&self) -> String {
        format!("{}{DIND_SUFFIX}", self.runner)
    }

    /// Directories that jobs mount into their containers have the same path on both sides.
    /// The runner's `externals` are among them: node, for JavaScript actions in containers.
    pub(super) fn runner_binds(&self) -> impl Iterator<Item = String> {
        [("work", self.work_folder.clone()), ("externals", format!("{}/externals", self.directory))]
            .into_iter()
            .chain([("run", "/var/run".to_owned())])
            .map(|(name, path)| format!("{}:{path}", self.volume(name)))
    }

    fn binds(&self) -> Vec<String> {
        let data = format!("{}:/var/lib/docker", self.volume("data"));
        self.runner_binds().chain([data]).collect()
    }

    fn volume(&self, name: &str) -> String {
        format!("{}-{name}", self.runner)
    }

    pub(super) fn work_folder(&self) -> &str {
        &self.work_folder
    }

    pub(super) fn to_body(
        &self,
        order: &Order,
        settings: &DindSettings,
        tool_cache: Option<&ToolCache>,
        proxy: Option<&HttpProxy>,
    ) -> ContainerCreateBody {
        let DindSettings { image, runtime, registry_mirrors, insecure_registries, arguments } =
            settings;
        let mut command = vec![
            "dockerd".to_owned(),
            format!("--host=unix://{SOCKET}"),
            format!("--group={GROUP}"),
        ];
        command.extend(registry_mirrors.iter().map(|url| format!("--registry-mirror={url}")));
        let insecure = insecure_registries.iter();
        command.extend(insecure.map(|registry| format!("--insecure-registry={registry}")));
        command.extend_from_slice(arguments);
        let mut shared = host_config(&order.settings.shared);
        if let Some(proxy) = proxy {
            proxy.confine(&mut shared);
        }
        let mut binds = shared.binds.clone().unwrap_or_default();
        binds.extend(self.binds());
        ContainerCreateBody {
            image: Some(image.clone()),
            cmd: Some(command),
            // It pulls images itself.
            env: proxy.map(|proxy| {
                proxy.variables().map(|(name, value)| format!("{name}={value}")).collect()
            }),
            labels: Some(dind_labels(&order.labels)),
            host_config: Some(HostConfig {
                privileged: Some(runtime.is_none()),
                runtime: runtime.clone(),
                network_mode: shared.network_mode.clone().or_else(|| Some(self.runner.clone())),
                binds: Some(binds),
                // Jobs mount it into their containers.
                mounts: tool_cache.map(|cache| vec![cache.mount()]),
                ..shared
            }),
            ..Default::default()
        }
    }
}

impl Docker {
    /// Returns when the Engine answers. One that runs is left running.
    pub(super) async fn start_dind(&self, name: &str) -> Result<(), Error> {
        self.start(name).await?;
        self.wait_until_ready(name).await
    }

    /// With its volumes and its network. An earlier call may have created it.
    pub(super) async fn create_dind(
        &self,
        order: &Order,
        settings: &DindSettings,
        tool_cache: Option<&ToolCache>,
        proxy: Option<&HttpProxy>,
    ) -> Result<Dind, Error> {
        let labels = &order.labels;
        let directory = self.working_directory(&order.image).await?;
        let dind = Dind::new(&labels.runner, &directory, &order.work_folder);
        self.create_volumes(&dind, labels).await?;
        if order.settings.shared.network.is_none() && proxy.is_none() {
            self.create_network(labels).await?;
        }
        let name = dind.container();
        let call = format!("create container {name} from {}", settings.image);
        let body = dind.to_body(order, settings, tool_cache, proxy);
        self.create(&call, &name, &order.images, body, labels).await?;
        Ok(dind)
    }

    async fn create_volumes(&self, dind: &Dind, labels: &Labels) -> Result<(), Error> {
        for bind in dind.binds() {
            let name = bind.split(':').next().unwrap_or_default().to_owned();
            let call = format!("create volume {name}");
            let volume = VolumeCreateRequest {
                name: Some(name),
                labels: Some(labels.to_map()),
                ..Default::default()
            };
            let created = self.bollard.create_volume(volume).await;
            created.map_err(|error| from_bollard(&call, &error))?;
        }
        Ok(())
    }

    /// Docker would create a second network with the same name.
    async fn create_network(&self, labels: &Labels) -> Result<(), Error> {
        let runner = &labels.runner;
        if !self.networks(Some(runner)).await?.is_empty() {
            return Ok(());
        }
        let call = format!("create network {runner}");
        let network = NetworkCreateRequest {
            name: runner.clone(),
            labels: Some(labels.to_map()),
            ..Default::default()
        };
        match self.bollard.create_network(network).await {
            Ok(_) => Ok(()),
            Err(Bollard::DockerResponseServerError { message, .. })
                if message.contains("address pool") =>
            {
                let what = format_args!(
                    "{message}; add default-address-pools to Docker's daemon.json, or set the \
                     pool's network"
                );
                Err(error(ErrorKind::Refused, &call, what))
            }
            Err(error) => Err(from_bollard(&call, &error)),
        }
    }

    /// Waits until the Engine inside returns its version.
    async fn wait_until_ready(&self, name: &str) -> Result<(), Error> {
        let call = format!("start the Engine in {name}");
        let refused = |what: std::fmt::Arguments<'_>| error(ErrorKind::Refused, &call, what);
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.run_inside(name, &["docker", "version"]).await {
                Ok(0) => return Ok(()),
                Ok(code) if NO_COMMAND.contains(&code) => {
                    return Err(refused(format_args!(
                        "the image has no command `docker`: set another dind_image"
                    )));
                }
                Ok(_) if Instant::now() < deadline => sleep(POLL_EVERY).await,
                Ok(_) => return Err(refused(format_args!("no answer within {READY_WITHIN:?}"))),
                // It may have ended, before the command or during it.
                Err(Bollard::DockerResponseServerError { message, .. }) => {
                    let log = self.last_log_lines(name, 3).await.unwrap_or_default();
                    return Err(refused(format_args!(
                        "{message}; its log ends with: {}",
                        log.trim()
                    )));
                }
                Err(error) => return Err(from_bollard(&call, &error)),
            }
        }
    }

    /// Returns the exit code.
    async fn run_inside(&self, container: &str, command: &[&str]) -> Result<i64, Bollard> {
        let options =
            CreateExecOptions { cmd: Some(command.to_vec()), ..CreateExecOptions::default() };
        let exec = self.bollard.create_exec(container, options).await?.id;
        let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
        self.bollard.start_exec(&exec, Some(detached)).await?;
        loop {
            let state = self.bollard.inspect_exec(&exec).await?;
            match state.exit_code {
                Some(code) if state.running != Some(true) => return Ok(code),
                _ => sleep(POLL_EVERY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Container},
        provider::order::Images,
    };

    #[test]
    fn both_sides_see_the_same_paths() {
        let dind = Dind::new("edge-1", "/home/runner", "_work");
        assert_eq!(dind.work_folder(), "/home/runner/_work");
        let runner: Vec<String> = dind.runner_binds().collect();
        let expected = [
            "edge-1-work:/home/runner/_work",
            "edge-1-externals:/home/runner/externals",
            "edge-1-run:/var/run",
        ];
        assert_eq!(runner, expected);
        let engine = dind.binds();
        assert!(runner.iter().all(|bind| engine.contains(bind)), "{engine:?}");

        let elsewhere = Dind::new("edge-1", "/actions-runner", "/_work");
        assert_eq!(elsewhere.work_folder(), "/_work");
        assert!(
            elsewhere.runner_binds().any(|it| it == "edge-1-externals:/actions-runner/externals")
        );
        assert_eq!(Dind::new("edge-1", "", "_work").work_folder(), "/home/runner/_work");
    }

    #[test]
    fn it_is_privileged_unless_its_runtime_makes_that_needless() {
        let dind = Dind::new("edge-1", "", "_work");
        let host = |container: &Container, runtime: Option<&str>| {
            let mut pool = Config::load(None, &|_| None).unwrap().pools.remove(0);
            pool.container = container.clone();
            let images = Images::new(container, &[]);
            let order = Order::new(Labels::default(), images, &pool, Vec::new(), 17);
            let settings = DindSettings {
                image: "docker:dind".into(),
                runtime: runtime.map(str::to_owned),
                registry_mirrors: Vec::new(),
                insecure_registries: Vec::new(),
                arguments: Vec::new(),
            };
            dind.to_body(&order, &settings, None, None).host_config.unwrap()
        };
        let settings = Container {
            memory_mib: Some(64),
            dns: vec!["10.0.0.2".into()],
            volumes: vec!["/cache:/cache".into()],
            runtime: Some("runsc".into()),
            ..Container::default()
        };
        let plain = host(&settings, None);
        assert_eq!((plain.privileged, plain.runtime.as_deref()), (Some(true), None));
        assert_eq!(plain.network_mode.as_deref(), Some("edge-1"));
        assert_eq!((plain.memory, plain.dns.unwrap().len()), (Some(64 << 20), 1));
        assert_eq!(plain.binds.unwrap()[0], "/cache:/cache");

        let settings = Container { network: Some("build".into()), ..settings };
        let confined = host(&settings, Some("sysbox-runc"));
        assert_eq!(confined.privileged, Some(false));
        assert_eq!(confined.runtime.as_deref(), Some("sysbox-runc"));
        assert_eq!(confined.network_mode.as_deref(), Some("build"));
    }
}
