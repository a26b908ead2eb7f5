use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use secrecy::{ExposeSecret, SecretString};

use super::labels::Labels;

/// One runner container. Its name is the runner's.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    pub labels: Labels,
    pub image: String,
    /// Empty: the image's own.
    pub command: Vec<String>,
    pub env: Vec<(String, SecretString)>,
    pub settings: ContainerSettings,
}

/// What a pool says about its containers. The default is the most confined.
#[derive(Clone, Debug, Default)]
pub struct ContainerSettings {
    pub resources: Resources,
    pub network: Option<String>,
    /// `host:address` each.
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub user: Option<String>,
    /// `None`: all of them.
    pub cap_drop: Option<Vec<String>>,
    pub cap_add: Vec<String>,
    /// Lets programs such as `sudo` raise their privileges.
    pub allow_new_privileges: bool,
    pub runtime: Option<String>,
    pub platform: Option<String>,
    /// `source:destination[:options]` each.
    pub volumes: Vec<String>,
    /// `/path[:options]` each.
    pub tmpfs: Vec<String>,
    pub log_driver: Option<String>,
    /// Puts a small init in front of the command, which reaps orphans.
    pub init: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Resources {
    pub cpus: Option<f64>,
    pub memory_mib: Option<u64>,
    pub pids: Option<i64>,
    pub shm_mib: Option<u64>,
}

impl ContainerSpec {
    pub(super) fn to_body(&self) -> ContainerCreateBody {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.expose_secret()))
            .collect();
        ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: some(&self.command),
            env: Some(env),
            user: self.settings.user.clone(),
            labels: Some(self.labels.to_map()),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.settings.to_host_config()),
            ..Default::default()
        }
    }
}

impl ContainerSettings {
    /// Neither a restart policy nor auto-removal: a runner serves one job, and
    /// its exit code and log are read after it ended.
    fn to_host_config(&self) -> HostConfig {
        let resources = &self.resources;
        HostConfig {
            nano_cpus: resources.cpus.map(|cpus| (cpus * 1e9) as i64),
            memory: resources.memory_mib.map(bytes),
            pids_limit: resources.pids,
            shm_size: resources.shm_mib.map(bytes),
            network_mode: self.network.clone(),
            extra_hosts: some(&self.extra_hosts),
            dns: some(&self.dns),
            cap_drop: Some(self.cap_drop.clone().unwrap_or_else(|| vec!["ALL".to_owned()])),
            cap_add: some(&self.cap_add),
            security_opt: (!self.allow_new_privileges)
                .then(|| vec!["no-new-privileges:true".to_owned()]),
            runtime: self.runtime.clone(),
            binds: some(&self.volumes),
            tmpfs: (!self.tmpfs.is_empty())
                .then(|| self.tmpfs.iter().map(|mount| tmpfs(mount)).collect()),
            log_config: self.log_driver.clone().map(|driver| HostConfigLogConfig {
                typ: Some(driver),
                config: Some(HashMap::new()),
            }),
            init: Some(self.init),
            ..Default::default()
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_confined_and_leaves_something_to_read() {
        let body = ContainerSpec { image: "runner:1".into(), ..Default::default() }.to_body();
        assert_eq!(body.image.as_deref(), Some("runner:1"));
        assert_eq!(body.cmd, None);
        assert_eq!((body.tty, body.open_stdin), (Some(false), Some(false)));
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.cap_add, None);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
        assert_eq!(host.restart_policy, None);
        assert_eq!(host.auto_remove, None);
        assert_eq!(host.privileged, None);
    }

    #[test]
    fn every_setting_reaches_docker() {
        let settings = ContainerSettings {
            resources: Resources {
                cpus: Some(1.5),
                memory_mib: Some(512),
                pids: Some(100),
                shm_mib: Some(64),
            },
            network: Some("build".into()),
            extra_hosts: vec!["cache:10.0.0.1".into()],
            dns: vec!["10.0.0.2".into()],
            user: Some("1001:1001".into()),
            cap_drop: Some(vec!["NET_RAW".into()]),
            cap_add: vec!["SYS_PTRACE".into()],
            allow_new_privileges: true,
            runtime: Some("runsc".into()),
            platform: Some("linux/arm64".into()),
            volumes: vec!["/cache:/cache:ro".into()],
            tmpfs: vec!["/tmp:size=64m,exec".into(), "/run".into()],
            log_driver: Some("local".into()),
            init: true,
        };
        let body = ContainerSpec {
            command: vec!["/run.sh".into(), "--once".into()],
            env: vec![("TOKEN".into(), "s3cret=".to_owned().into())],
            settings,
            ..Default::default()
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
        assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("local"));
        assert_eq!(host.init, Some(true));
    }

    #[test]
    fn secrets_are_not_printed() {
        let spec = ContainerSpec {
            env: vec![("TOKEN".into(), "s3cret".to_owned().into())],
            ..Default::default()
        };
        assert!(!format!("{spec:?}").contains("s3cret"));
    }
}
