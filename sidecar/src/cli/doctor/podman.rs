//! Checks that Podman can do what the pools ask for.

use super::report::Report;
use crate::{
    config::{Config, Container, ProviderName},
    provider::docker::PodmanInfo,
};

/// An old name of one of its drivers.
const JSON_FILE: &str = "json-file";

pub(super) fn check(config: &Config, info: &PodmanInfo, report: &mut Report) {
    for pool in config.pools.iter().filter(|it| it.provider == ProviderName::Docker) {
        let name = format!("pool {} on Podman", pool.name);
        let problems = problems(&pool.container, info);
        match problems.is_empty() {
            true => report.ok(name, "it can set the pool's limits"),
            false => report.failed(name, problems.join("; ")),
        }
    }
}

fn problems(container: &Container, info: &PodmanInfo) -> Vec<String> {
    let limits = [
        ("cpus", container.cpus.is_some(), "cpu"),
        ("memory_mib", container.memory_mib.is_some(), "memory"),
        ("pids", container.pids.is_some(), "pids"),
    ];
    let is_missing = |controller: &str| !info.controllers.iter().any(|it| it == controller);
    let missing = limits.iter().filter(|(_, is_set, controller)| *is_set && is_missing(controller));
    let mut problems: Vec<String> = missing
        .map(|(setting, _, controller)| {
            let how = match info.rootless {
                true => "delegate it to the user in systemd (Delegate=), or run Podman as root",
                false => "enable it on the machine",
            };
            format!("{setting} needs the control group controller {controller}: {how}")
        })
        .collect();
    if let Some(driver) = &container.log_driver
        && driver != JSON_FILE
        && !info.log_drivers.contains(driver)
    {
        let drivers = info.log_drivers.join(", ");
        problems.push(format!("it has no log_driver {driver}: write {drivers}, or leave it out"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd delegates by default to a user.
    fn rootless() -> PodmanInfo {
        let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect();
        PodmanInfo {
            rootless: true,
            controllers: texts(&["memory", "pids"]),
            log_drivers: texts(&["k8s-file", "none", "passthrough", "journald"]),
        }
    }

    #[test]
    fn limits_that_rootless_podman_cannot_set_are_named() {
        let mut container =
            Container { memory_mib: Some(64), pids: Some(9), ..Container::default() };
        assert_eq!(problems(&container, &rootless()), [] as [String; 0]);
        container.cpus = Some(1.5);
        let found = problems(&container, &rootless());
        assert!(found[0].starts_with("cpus needs the control group controller cpu"), "{found:?}");
        assert!(found[0].contains("Delegate="), "{found:?}");
    }

    #[test]
    fn a_log_driver_of_docker_alone_is_named() {
        let with = |driver: &str| {
            let container = Container { log_driver: Some(driver.into()), ..Container::default() };
            problems(&container, &rootless())
        };
        assert_eq!(with("json-file"), [] as [String; 0]);
        assert_eq!(with("journald"), [] as [String; 0]);
        assert!(with("local")[0].contains("write k8s-file, none"), "{:?}", with("local"));
    }
}
