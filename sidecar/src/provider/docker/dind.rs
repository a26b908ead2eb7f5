//! A Docker Engine for one runner alone: a container beside the runner's, volumes that
//! both see under the same paths, and a network.

use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::exec::{CreateExecOptions, StartExecOptions};
use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::CreateContainerOptions;
use tokio::time::{Instant, sleep};

use super::{Cause, Docker, Error, Labels, labels, spec};
use crate::config::Container;

/// Where GitHub's runner mounts it into a job's containers, too.
pub(super) const SOCKET: &str = "/var/run/docker.sock";
/// Of the socket: the group `docker` of GitHub's own image, and given to every runner.
pub(super) const GROUP: u32 = 123;
/// If the image does not say where the runner is.
const RUNNER_DIRECTORY: &str = "/home/runner";

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The shell's codes for a command that is not there or cannot be run.
const NO_COMMAND: [i64; 2] = [126, 127];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dind {
    runner: String,
    /// Where the runner is installed.
    directory: String,
    work_folder: String,
}

impl Dind {
    fn new(runner: &str, directory: &str, work_folder: &str) -> Self {
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
        format!("{}-dind", self.runner)
    }

    /// What jobs bind into their containers has the same path on both sides. The
    /// runner's `externals` are among it: node, for JavaScript actions in containers.
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

    pub(crate) fn work_folder(&self) -> &str {
        &self.work_folder
    }

    fn to_body(&self, labels: &Labels, settings: &Container) -> ContainerCreateBody {
        let shared = spec::host_config(settings);
        let mut binds = shared.binds.clone().unwrap_or_default();
        binds.extend(self.binds());
        ContainerCreateBody {
            image: Some(settings.dind_image.clone()),
            cmd: Some(vec![
                "dockerd".to_owned(),
                format!("--host=unix://{SOCKET}"),
                format!("--group={GROUP}"),
            ]),
            labels: Some(labels.to_map_of(labels::DIND)),
            host_config: Some(HostConfig {
                privileged: Some(settings.dind_runtime.is_none()),
                runtime: settings.dind_runtime.clone(),
                network_mode: shared.network_mode.clone().or_else(|| Some(self.runner.clone())),
                binds: Some(binds),
                ..shared
            }),
            ..Default::default()
        }
    }
}

impl Docker {
    /// Returns when the Engine answers.
    pub(crate) async fn start_dind(
        &self,
        labels: &Labels,
        settings: &Container,
        work_folder: &str,
    ) -> Result<Dind, Error> {
        let directory = self.working_directory(&settings.runner_image).await?;
        let dind = Dind::new(&labels.runner, &directory, work_folder);
        self.create_volumes(&dind, labels).await?;
        if settings.network.is_none() {
            self.create_network(labels).await?;
        }
        let name = dind.container();
        let call = format!("create container {name} from {}", settings.dind_image);
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            platform: settings.platform.clone().unwrap_or_default(),
        };
        let created = self.create_named(&call, options, dind.to_body(labels, settings), labels);
        self.start(&created.await?).await?;
        self.answers(&name).await?;
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
            self.bollard
                .create_volume(volume)
                .await
                .map_err(|error| Error::from_bollard(&call, &error))?;
        }
        Ok(())
    }

    async fn create_network(&self, labels: &Labels) -> Result<(), Error> {
        let call = format!("create network {}", labels.runner);
        let network = NetworkCreateRequest {
            name: labels.runner.clone(),
            labels: Some(labels.to_map()),
            ..Default::default()
        };
        match self.bollard.create_network(network).await {
            Ok(_) => Ok(()),
            Err(Bollard::DockerResponseServerError { message, .. })
                if message.contains("address pool") =>
            {
                let what = format_args!(
                    "{message}; give Docker more default-address-pools, or the pool a network"
                );
                Err(Error::new(Cause::Other, &call, what))
            }
            Err(error) => Err(Error::from_bollard(&call, &error)),
        }
    }

    /// Asks the Engine inside for its version until it tells.
    async fn answers(&self, name: &str) -> Result<(), Error> {
        let call = format!("start the Engine in {name}");
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            match self.run_inside(name, &["docker", "version"]).await {
                Ok(0) => return Ok(()),
                Ok(code) if NO_COMMAND.contains(&code) => {
                    let what = "there is no command `docker` in it: set another dind_image";
                    return Err(Error::new(Cause::Invalid, &call, what));
                }
                Ok(_) if Instant::now() < deadline => sleep(ASK_EVERY).await,
                Ok(_) => {
                    let what = format_args!("no answer within {ANSWERS_WITHIN:?}");
                    return Err(Error::new(Cause::Other, &call, what));
                }
                // It may have ended, before or while it was asked.
                Err(Bollard::DockerResponseServerError { message, .. }) => {
                    let log = self.last_log_lines(name, 3).await.unwrap_or_default();
                    let what = format_args!("{message}; its log ends with: {}", log.trim());
                    return Err(Error::new(Cause::Other, &call, what));
                }
                Err(error) => return Err(Error::from_bollard(&call, &error)),
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
            let seen = self.bollard.inspect_exec(&exec).await?;
            match seen.exit_code {
                Some(code) if seen.running != Some(true) => return Ok(code),
                _ => sleep(ASK_EVERY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let host =
            |settings: &Container| dind.to_body(&Labels::default(), settings).host_config.unwrap();
        let settings = Container {
            memory_mib: Some(64),
            dns: vec!["10.0.0.2".into()],
            volumes: vec!["/cache:/cache".into()],
            runtime: Some("runsc".into()),
            ..Container::default()
        };
        let plain = host(&settings);
        assert_eq!((plain.privileged, plain.runtime.as_deref()), (Some(true), None));
        assert_eq!(plain.network_mode.as_deref(), Some("edge-1"));
        assert_eq!((plain.memory, plain.dns.unwrap().len()), (Some(64 << 20), 1));
        assert_eq!(plain.binds.unwrap()[0], "/cache:/cache");

        let settings = Container {
            dind_runtime: Some("sysbox-runc".into()),
            network: Some("build".into()),
            ..settings
        };
        let confined = host(&settings);
        assert_eq!(confined.privileged, Some(false));
        assert_eq!(confined.runtime.as_deref(), Some("sysbox-runc"));
        assert_eq!(confined.network_mode.as_deref(), Some("build"));
    }
}
