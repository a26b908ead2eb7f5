//! Checks the Docker Engine and the images of the pools.

use std::collections::BTreeMap;

use super::{report::Report, space};
use crate::{
    config::{Config, DockerAccess, PullPolicy},
    provider::{
        RegistryLogin,
        docker::{Availability, Docker},
    },
};

pub(super) async fn check(config: &Config, report: &mut Report) {
    let docker = Docker::connect(&config.engine, &config.scheduler.instance);
    match docker.version().await {
        Ok(version) => report.ok("Docker", format!("Docker Engine {version}")),
        // The images would fail for the same reason.
        Err(error) => return report.failed("Docker", error),
    }
    match docker.directory().await {
        Ok(directory) => space::check_docker(&directory, report),
        Err(error) => report.failed("disk space of Docker", error),
    }
    for (image, policy) in images(config) {
        let login = RegistryLogin::find(&config.registries, image);
        let found = docker.image_available(image, policy, login.as_ref()).await;
        let found = found.map(|available| match available {
            Availability::Present => "present on this machine",
            Availability::Pullable => "available in its registry; pulled when needed",
        });
        report.add(format!("image {image}"), found);
    }
}

fn images(config: &Config) -> BTreeMap<&str, PullPolicy> {
    let containers = || config.pools.iter().map(|pool| &pool.container);
    let engines = containers().filter(|it| it.docker == DockerAccess::Dind);
    let runners = containers().map(|it| (&*it.runner_image, it.pull_policy));
    runners.chain(engines.map(|it| (&*it.dind_image, it.pull_policy))).collect()
}
