use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits};
use secrecy::{ExposeSecret, SecretString};

use super::{
    dind::{Dind, GROUP, SOCKET},
    labels::Labels,
};
use crate::config::{Container, ulimit_of};

/// One runner container. Its name is the runner's.
#[derive(Clone, Debug)]
pub(crate) struct ContainerSpec {
    pub labels: Labels,
    /// Empty: the image's own.
    pub command: Vec<String>,
    pub env: Vec<(String, SecretString)>,
    pub settings: Container,
    /// The Docker Engine that its jobs can use.
    pub engine: Option<JobEngine>,
    /// Put into it before it starts.
    pub files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobEngine {
    /// The one that runs the runner.
    Host { socket: String, group: u32 },
    /// One for this runner alone.
    Own(Dind),
}

/// In a container, by its absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Script {
        path: String,
        content: Vec<u8>,
    },
    /// Everybody in the container may write there.
    Directory {
        path: String,
    },
}

impl ContainerSpec {
    pub(super) fn to_body(&self) -> ContainerCreateBody {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.expose_secret()))
            .collect();
        ContainerCreateBody {
            image: Some(self.settings.runner_image.clone()),
            cmd: some(&self.command),
            env: Some(env),
            user: self.settings.user.clone(),
            labels: Some(self.labels.to_map()),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.to_host_config()),
            ..Default::default()
        }
    }

    fn to_host_config(&self) -> HostConfig {
        let mut host = runner_host_config(&self.settings);
        let mut mount = |bind: String| host.binds.get_or_insert_default().push(bind);
        match &self.engine {
            None => {}
            Some(JobEngine::Host { socket, group }) => {
                mount(format!("{socket}:{SOCKET}"));
                host.group_add = Some(vec![group.to_string()]);
            }
            Some(JobEngine::Own(dind)) => {
                dind.runner_binds().for_each(mount);
                host.group_add = Some(vec![GROUP.to_string()]);
                // What a job publishes is on its localhost, as on GitHub's machines.
                host.network_mode = Some(format!("container:{}", dind.container()));
                (host.dns, host.extra_hosts) = (None, None);
            }
        }
        host
    }

    /// What [`Self::files`] are uploaded as; `None` if there are none.
    pub(super) fn archive(&self) -> std::io::Result<Option<Vec<u8>>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let mut archive = tar::Builder::new(Vec::new());
        for file in &self.files {
            let mut header = tar::Header::new_gnu();
            let (path, content) = match file {
                File::Script { path, content } => {
                    header.set_mode(0o755);
                    (path, content.as_slice())
                }
                File::Directory { path } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o777);
                    (path, &[][..])
                }
            };
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path.trim_start_matches('/'), content)?;
        }
        archive.into_inner().map(Some)
    }
}

/// Neither a restart policy nor auto-removal: a runner serves one job, and
/// its exit code and log are read after it ended.
fn runner_host_config(settings: &Container) -> HostConfig {
    HostConfig {
        shm_size: settings.shm_mib.map(bytes),
        ulimits: (!settings.ulimits.is_empty())
            .then(|| settings.ulimits.iter().filter_map(|text| ulimit(text)).collect()),
        cap_drop: some(&settings.cap_drop),
        cap_add: some(&settings.cap_add),
        security_opt: (!settings.allow_new_privileges)
            .then(|| vec!["no-new-privileges:true".to_owned()]),
        runtime: settings.runtime.clone(),
        tmpfs: (!settings.tmpfs.is_empty())
            .then(|| settings.tmpfs.iter().map(|mount| tmpfs(mount)).collect()),
        init: Some(settings.init),
        ..host_config(settings)
    }
}

/// What holds for a runner and for an Engine of its own alike.
pub(super) fn host_config(settings: &Container) -> HostConfig {
    HostConfig {
        nano_cpus: settings.cpus.map(|cpus| (cpus * 1e9) as i64),
        memory: settings.memory_mib.map(bytes),
        pids_limit: settings.pids,
        network_mode: settings.network.clone(),
        extra_hosts: some(&settings.extra_hosts),
        dns: some(&settings.dns),
        binds: some(&settings.volumes),
        log_config: (settings.log_driver.is_some() || !settings.log_options.is_empty()).then(
            || HostConfigLogConfig {
                typ: settings.log_driver.clone(),
                config: Some(settings.log_options.clone().into_iter().collect()),
            },
        ),
        ..Default::default()
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn bytes(mib: u64) -> i64 {
    i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}

fn tmpfs(mount: &str) -> (String, String) {
    let (path, options) = mount.split_once(':').unwrap_or((mount, ""));
    (path.to_owned(), options.to_owned())
}

fn ulimit(text: &str) -> Option<ResourcesUlimits> {
    let (name, soft, hard) = ulimit_of(text)?;
    Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(settings: Container) -> ContainerSpec {
        ContainerSpec {
            labels: Labels::default(),
            command: Vec::new(),
            env: Vec::new(),
            settings,
            engine: None,
            files: Vec::new(),
        }
    }

    #[test]
    fn the_default_is_confined_and_leaves_something_to_read() {
        let body = spec(Container::default()).to_body();
        assert_eq!(body.image.as_deref(), Some("ghcr.io/actions/actions-runner:latest"));
        assert_eq!(body.cmd, None);
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
    }

    #[test]
    fn every_setting_reaches_docker() {
        let settings = Container {
            cpus: Some(1.5),
            memory_mib: Some(512),
            pids: Some(100),
            shm_mib: Some(64),
            ulimits: vec!["nofile=1024:2048".into(), "core=-1".into()],
            network: Some("build".into()),
            extra_hosts: vec!["cache:10.0.0.1".into()],
            dns: vec!["10.0.0.2".into()],
            user: Some("1001:1001".into()),
            cap_drop: vec!["NET_RAW".into()],
            cap_add: vec!["SYS_PTRACE".into()],
            allow_new_privileges: true,
            runtime: Some("runsc".into()),
            volumes: vec!["/cache:/cache:ro".into()],
            tmpfs: vec!["/tmp:size=64m,exec".into(), "/run".into()],
            log_driver: Some("local".into()),
            log_options: [("max-size".into(), "10m".into())].into(),
            init: true,
            ..Container::default()
        };
        let body = ContainerSpec {
            command: vec!["/run.sh".into(), "--once".into()],
            env: vec![("TOKEN".into(), "s3cret=".to_owned().into())],
            ..spec(settings)
        }
        .to_body();
        assert_eq!(body.cmd.unwrap(), ["/run.sh", "--once"]);
        assert_eq!(body.env.unwrap(), ["TOKEN=s3cret="]);
        assert_eq!(body.user.as_deref(), Some("1001:1001"));
        let host = body.host_config.unwrap();
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
    }

    #[test]
    fn the_socket_comes_with_its_group() {
        let engine = Some(JobEngine::Host { socket: "/run/my.sock".into(), group: 998 });
        let host = ContainerSpec { engine, ..spec(Container::default()) }.to_host_config();
        assert_eq!(host.binds.unwrap(), ["/run/my.sock:/var/run/docker.sock"]);
        assert_eq!(host.group_add.unwrap(), ["998"]);
    }

    #[test]
    fn files_keep_their_modes_on_the_way() {
        let files = vec![
            File::Directory { path: "/home/runner/_work".into() },
            File::Script { path: "/opt/a.sh".into(), content: b"true".to_vec() },
        ];
        let archive = ContainerSpec { files, ..spec(Container::default()) }.archive();
        let archive = archive.unwrap().unwrap();
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
        let expected = [("home/runner/_work", 0o777, 0), ("opt/a.sh", 0o755, 4)];
        assert_eq!(entries, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
    }

    #[test]
    fn secrets_are_not_printed() {
        let spec = ContainerSpec {
            env: vec![("TOKEN".into(), "s3cret".to_owned().into())],
            ..spec(Container::default())
        };
        assert!(!format!("{spec:?}").contains("s3cret"));
    }
}
