//! A Swarm of real Docker Engines on this machine, each on a host made of namespaces.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::models::{Node as SwarmNode, NodeState, SwarmInitRequest, SwarmJoinRequest};
use bollard::query_parameters::ListNodesOptions;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

pub use self::node::Node;
use self::node::Shared;
use crate::hosts::{Cgroups, Network, search_path};
use crate::{eventually_within, images};

mod node;

/// Swarm's own port.
const PORT: u16 = 2377;
/// Three Engines on a busy machine.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// A killed leader is replaced after about 14 s.
const LEADER_LIMIT: Duration = Duration::from_secs(60);

/// The variable that has the [`Swarm`] that all tests use.
const VARIABLE: &str = "EDGERUNNER_SWARM";

/// How to reach a [`Cluster`], also from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Swarm {
    /// The values for `DOCKER_HOST` of all Engines, managers first.
    pub engines: Vec<String>,
    /// The number of managers.
    managers: usize,
    /// The address at which runners on all nodes reach this machine.
    pub gateway: IpAddr,
}

impl Swarm {
    /// As [`Self::pass_to`] left it; `None` if the tests use Docker alone.
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
        serde_json::from_str(&text.to_string_lossy()).with_context(|| format!("bad {VARIABLE}"))
    }

    pub fn pass_to(&self, command: &mut Command) -> Result<()> {
        command.env(VARIABLE, serde_json::to_string(self)?);
        Ok(())
    }

    pub fn managers(&self) -> &[String] {
        &self.engines[..self.managers]
    }
}

/// Its nodes end, with everything on them, when it is dropped and when this process ends.
pub struct Cluster {
    /// Managers first.
    pub nodes: Vec<Node>,
    managers: usize,
    network: Arc<Network>,
    // After the nodes, which have to end first.
    cgroups: Cgroups,
    directory: TempDir,
}

impl Cluster {
    /// Starts the Engines and makes them a Swarm. `programs` is a directory with the programs of a
    /// Docker Engine, in `bin` and `sbin`; runc is the machine's. Each node gets `images` from the
    /// machine's own Engine. Needs root.
    pub async fn start(
        programs: &Path,
        managers: usize,
        workers: usize,
        images: &[&str],
    ) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "Docker Engines need root: run it as root");
        let id = &Uuid::new_v4().simple().to_string()[..8];
        let directory = TempDir::with_prefix("swarm-")?;
        let bin = programs.join("bin");
        let init = bin.join("docker-init");
        let path = search_path(&bin)?;
        let network = Arc::new(Network::new(id, &init).await?);
        let mut cluster = Self {
            nodes: Vec::new(),
            managers,
            network: Arc::clone(&network),
            cgroups: Cgroups::new(id),
            directory,
        };
        for number in (1..).take(managers + workers) {
            let shared =
                Shared { network: &network, path: &path, init: &init, cgroups: &cluster.cgroups };
            let directory = cluster.directory.path().join(format!("node-{number}"));
            cluster.nodes.push(Node::new(&shared, number, directory).await?);
        }
        try_join_all(cluster.nodes.iter_mut().map(Node::start)).await?;
        tokio::try_join!(cluster.join(), cluster.load(images))?;
        Ok(cluster)
    }

    /// Makes the Engines one Swarm.
    async fn join(&self) -> Result<()> {
        let (first, others) = self.nodes.split_first().context("a Swarm needs a manager")?;
        let address = |node: &Node| Some(format!("{}:{PORT}", node.address()));
        let docker = first.docker()?;
        let request = SwarmInitRequest {
            listen_addr: address(first),
            advertise_addr: address(first),
            ..SwarmInitRequest::default()
        };
        docker.init_swarm(request).await.context("the Swarm cannot be created")?;
        let tokens = docker.inspect_swarm().await?.join_tokens.context("no join tokens")?;
        let join = async |node: &Node, token: &Option<String>| -> Result<()> {
            let request = SwarmJoinRequest {
                listen_addr: address(node),
                advertise_addr: address(node),
                data_path_addr: None,
                remote_addrs: Some(address(first).into_iter().collect()),
                join_token: token.clone(),
            };
            let joined = node.docker()?.join_swarm(request).await;
            joined.with_context(|| format!("{} cannot join the Swarm", node.name()))
        };
        let (managers, workers) = others.split_at(self.managers - 1);
        // Raft takes one new member at a time.
        for manager in managers {
            join(manager, &tokens.manager).await?;
        }
        try_join_all(workers.iter().map(|worker| join(worker, &tokens.worker))).await?;
        eventually_within(JOIN_LIMIT, "all nodes are ready", async || {
            let nodes = docker.list_nodes(None::<ListNodesOptions>).await?;
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            Ok((ready == self.nodes.len()).then_some(()))
        })
        .await
    }

    /// Copies images of the machine's own Engine to all nodes.
    async fn load(&self, names: &[&str]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let archive = images::export(names).await?;
        try_join_all(
            self.nodes
                .iter()
                .map(async |node| images::load(&node.docker()?, names, archive.clone()).await),
        )
        .await?;
        Ok(())
    }

    pub fn swarm(&self) -> Swarm {
        Swarm {
            engines: self.nodes.iter().map(Node::docker_host).collect(),
            managers: self.managers,
            gateway: self.network.gateway().into(),
        }
    }

    /// The position of the managers' leader in `nodes`. Waits until there is one.
    pub async fn leader(&self) -> Result<usize> {
        let managers = &self.nodes[..self.managers];
        eventually_within(LEADER_LIMIT, "there is a leader", async || {
            for manager in managers.iter().filter(|node| node.is_running()) {
                let Ok(nodes) = manager.docker()?.list_nodes(None::<ListNodesOptions>).await else {
                    continue;
                };
                let leader = nodes.into_iter().find(is_leader).and_then(|node| node.description);
                let name = leader.and_then(|description| description.hostname);
                // It may be the one before, which no longer runs.
                let position =
                    managers.iter().position(|node| Some(node.name()) == name.as_deref());
                if let Some(position) = position.filter(|at| managers[*at].is_running()) {
                    return Ok(Some(position));
                }
            }
            Ok(None)
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once, and then each is waited for.
        self.nodes.iter_mut().for_each(Node::close);
    }
}

fn is_ready(node: &SwarmNode) -> bool {
    node.status.as_ref().and_then(|status| status.state) == Some(NodeState::READY)
}

fn is_leader(node: &SwarmNode) -> bool {
    node.manager_status.as_ref().and_then(|status| status.leader) == Some(true)
}
