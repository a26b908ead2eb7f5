//! Checks the Docker Engine and the images of the pools.

use std::collections::BTreeMap;

use super::{fit, fix::Fix, podman, reach, report::Report, space};
use crate::{
    config::{Config, DockerAccess, PoolConfig, ProviderName, PullPolicy},
    provider::{
        Images, RegistryLogin,
        docker::{Availability, Docker, Product},
    },
};

pub(super) async fn check(config: &Config, report: &mut Report) {
    if config.pools.iter().all(is_of_pods) {
        return report.skipped("Docker", "all pools run in Kubernetes");
    }
    let docker = Docker::connect(&config.engine, &config.scheduler.instance);
    let version = match docker.version().await {
        Ok(version) => version,
        // The images would fail for the same reason.
        Err(error) => return report.failed("Docker", error),
    };
    let product = version.product;
    report.ok("Docker", version);
    if product == Product::Podman {
        match docker.podman_info().await {
            Ok(info) => podman::check(config, &info, report),
            Err(error) => report.failed("limits of Podman", error),
        }
    }
    match docker.directory().await {
        Ok(directory) => {
            let here = config.engine.is_here();
            space::check_docker(&directory, here, config.reserves.disk_mib, report);
        }
        Err(error) => report.failed("disk space of Docker", error),
    }
    match docker.capacity().await {
        Ok(capacity) => fit::check(config, capacity, report),
        Err(error) => report.failed("room for runners", error),
    }
    for (image, policy) in images(config) {
        let login = RegistryLogin::find(&config.registries, &image);
        let name = format!("image {image}");
        match docker.image_available(product, &image, policy, login.as_ref()).await {
            Ok(Availability::Present) => report.ok(name, "present on this machine"),
            Ok(Availability::Pullable) => {
                report.ok(name, "available in its registry; pulled when needed");
                let container = config
                    .pools
                    .iter()
                    .flat_map(PoolConfig::containers)
                    .find(|it| it.runner_image == image || it.dind_image == image);
                if let (Some(container), Ok(false)) = (container, docker.has_image(&image).await) {
                    let images = Images::new(&container, &config.registries);
                    report.fix(Fix::pull(images, &image));
                }
            }
            Ok(Availability::Unknown) => {
                let what = "pulled when needed; Podman does not ask registries, so \
                            `podman pull` shows whether that works";
                report.skipped(name, what);
            }
            Err(error) => report.failed(name, error),
        }
    }
    reach::check(config, &docker, report).await;
}

fn images(config: &Config) -> BTreeMap<String, PullPolicy> {
    let pools = || config.pools.iter().filter(|pool| !is_of_pods(pool));
    let containers = || pools().flat_map(PoolConfig::containers);
    let engines = containers().filter(|it| it.docker == DockerAccess::Dind);
    let runners = containers().map(|it| (it.runner_image, it.pull_policy));
    runners.chain(engines.map(|it| (it.dind_image, it.pull_policy))).collect()
}

/// Whether its images are pulled by the nodes of a cluster.
fn is_of_pods(pool: &PoolConfig) -> bool {
    pool.provider == ProviderName::Kubernetes
}
