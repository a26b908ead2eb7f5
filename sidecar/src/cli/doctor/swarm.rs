//! Checks the Docker Swarm, and that each pool has nodes that can run its runners.

use super::report::Report;
use crate::{
    config::{Config, DockerAccess, PoolConfig, ProviderName, PullPolicy, SwarmConfig},
    provider::{
        Node, RegistryLogin,
        docker::{Docker, Product},
        swarm::Swarm,
    },
};

const SWARM: &str = "Docker Swarm";

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(swarm) = &config.swarm else { return };
    let instance = &config.scheduler.instance;
    for address in &swarm.managers {
        let name = format!("manager {address}");
        match Docker::connect(address, instance).version().await {
            Ok(version) if version.product == Product::Podman => {
                report.failed(name, format!("{version} has no Swarm: name Docker Engines"));
            }
            version => report.add(name, version),
        }
    }
    let nodes = match Swarm::connect(swarm, instance, &config.registries).nodes().await {
        Ok(nodes) => nodes,
        Err(error) => return report.failed(SWARM, error),
    };
    check_nodes(&nodes, report);
    check_image(config, swarm, report).await;
    for pool in config.pools.iter().filter(|pool| pool.provider == ProviderName::Swarm) {
        check_pool(pool, &nodes, report);
    }
}

fn check_nodes(nodes: &[Node], report: &mut Report) {
    let managers = nodes.iter().filter(|node| node.manager).count();
    let ready = nodes.iter().filter(|node| node.may_launch()).count();
    let runners: usize = nodes.iter().map(|node| node.runners).sum();
    report.ok(
        SWARM,
        format!("{managers} managers, {ready} of {} nodes ready, {runners} runners", nodes.len()),
    );
    match managers {
        1 | 2 => {
            let what = format!("{managers}: the loss of one stops launches; make it 3");
            report.warning("managers", what);
        }
        _ if managers % 2 == 0 => {
            let what = format!("{managers}: no more of them may be lost than of {}", managers - 1);
            report.warning("managers", what);
        }
        _ => report.ok("managers", managers),
    }
    for node in nodes {
        let name = format!("node {}", node.name);
        if node.too_old {
            let what = format!(
                "Docker Engine {} leaves runners running when they are removed: upgrade to 23.0.3 \
                 or later. Nothing is launched there",
                node.engine
            );
            report.failed(name, what);
        } else if node.state != "ready" {
            let message = if node.message.is_empty() { "" } else { &node.message };
            report.warning(name, format!("{} {message}", node.state).trim_end());
        } else if !node.reachable {
            report.warning(name, "the other managers do not reach it");
        }
    }
    let sum = |of: fn(&Node) -> f64| nodes.iter().filter(|it| it.may_launch()).map(of).sum::<f64>();
    let (cpus, memory) = (sum(|it| it.cpus), sum(|it| it.memory_mib as f64 / 1024.0));
    let (taken, taken_memory) =
        (sum(|it| it.reserved_cpus), sum(|it| it.reserved_memory_mib as f64 / 1024.0));
    report.ok(
        "room",
        format!("{taken} of {cpus} CPUs and {taken_memory:.0} of {memory:.0} GiB are reserved by runners"),
    );
}

async fn check_image(config: &Config, swarm: &SwarmConfig, report: &mut Report) {
    let image = &swarm.launcher_image;
    let Some(manager) = swarm.managers.first().filter(|_| !image.is_empty()) else { return };
    let docker = Docker::connect(manager, &config.scheduler.instance);
    let login = RegistryLogin::find(&config.registries, image);
    let name = format!("launcher image {image}");
    let product = Product::Docker;
    match docker.image_available(product, image, PullPolicy::Always, login.as_ref()).await {
        Ok(_) => report.ok(name, "every node can pull it from its registry"),
        Err(error) => match docker.image_available(product, image, PullPolicy::Never, None).await {
            Ok(_) => {
                let what = format!("only on nodes that have it already: {error}");
                report.warning(name, what);
            }
            Err(_) => report.failed(name, error),
        },
    }
}

fn check_pool(pool: &PoolConfig, nodes: &[Node], report: &mut Report) {
    let name = format!("nodes of pool {}", pool.name);
    let shared = &pool.container;
    let times = if shared.docker == DockerAccess::Dind { 2.0 } else { 1.0 };
    let cpus = shared.cpus.unwrap_or_default() * times;
    let memory = shared.memory_mib.unwrap_or_default() as f64 * times;
    let usable = || nodes.iter().filter(|node| node.may_launch());
    let placed: Vec<&Node> =
        usable().filter(|node| pool.placement.iter().all(|it| node.meets(it))).collect();
    if placed.is_empty() {
        let what = format!("no node meets {}", pool.placement.join(", "));
        let what = if pool.placement.is_empty() { "no node is ready".to_owned() } else { what };
        return report.failed(name, what);
    }
    let fit = placed.iter().filter(|it| it.cpus >= cpus && it.memory_mib as f64 >= memory).count();
    if fit == 0 {
        let what = format!(
            "none of {} has {cpus} CPUs and {memory} MiB of memory: write less in the pool's cpus \
             and memory_mib{}",
            placed.len(),
            if times > 1.0 { ", which its own Engine needs as well" } else { "" },
        );
        return report.failed(name, what);
    }
    let unlimited = shared.cpus.is_none() || shared.memory_mib.is_none();
    if unlimited {
        let what = format!(
            "{fit} nodes; without cpus and memory_mib any number of runners is placed on each"
        );
        return report.warning(name, what);
    }
    report.ok(name, format!("{fit} nodes"));
}
