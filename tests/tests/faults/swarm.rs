//! Faults of a Docker Swarm: nodes that are cut off or drained, Engines and launchers that are
//! killed. Each scenario has a Swarm of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, Node, NodeSpecAvailabilityEnum, NodeState, TaskState};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListNodesOptions, ListTasksOptions,
    UpdateNodeOptions,
};
use edgerunner_sandbox::{Conclusion, JobStatus};
use edgerunner_testkit::programs::LAUNCHER_IMAGE;
use edgerunner_tests::tools::swarm_programs;
use edgerunner_tests::{Cluster, Options, RUNNER_IMAGE, Stack, eventually, eventually_within};
use tokio::sync::{Mutex, MutexGuard};

use crate::account::Account;
use crate::figures::Figures;

const MAX: usize = 4;
/// Swarm notices after about 14 s that a node or its leader is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(90);
/// Longer than it takes Swarm to notice.
const LONG_JOB_SECONDS: f64 = 40.0;
const SHORT_JOB_SECONDS: f64 = 0.5;

/// The label of everything that belongs to a runner.
pub(crate) const RUNNER: &str = "dev.edgerunner.runner";

/// The name of the runner that a container belongs to; empty for the launcher of a sweep.
pub(crate) fn runner_of(container: &ContainerSummary) -> &str {
    let labels = container.labels.as_ref();
    labels.and_then(|labels| labels.get(RUNNER)).map_or("", String::as_str)
}

/// Three Engines keep the machine busy.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A Swarm, and everything else.
pub(crate) struct Swarm {
    pub(crate) cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Swarm {
    pub(crate) async fn start(managers: usize, workers: usize) -> Self {
        let _turn = ONE_AT_A_TIME.lock().await;
        let programs = swarm_programs().expect("Engines");
        let images = [RUNNER_IMAGE, LAUNCHER_IMAGE];
        let cluster = Cluster::start(&programs, managers, workers, &images).await;
        Self { cluster: cluster.expect("a Swarm"), _turn }
    }

    /// Runners are placed where this constraint holds.
    fn options(&self, placement: &str) -> Options {
        Options::default()
            .swarm(&self.cluster.swarm())
            .sidecar("RUNNER_MAX", &MAX.to_string())
            .sidecar("RUNNER_PLACEMENT", placement)
    }

    /// The position of the node that runs this container.
    async fn node_with(&self, container: &str) -> Result<usize> {
        for (position, node) in self.cluster.nodes.iter().enumerate() {
            let docker = node.docker()?;
            match docker.inspect_container(container, None::<InspectContainerOptions>).await {
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                found => return found.map(|_| position).map_err(Into::into),
            }
        }
        anyhow::bail!("no node has the container {container}")
    }

    async fn leader(&self) -> Result<Docker> {
        self.cluster.nodes[self.cluster.leader().await?].docker()
    }

    /// Waits until the managers see the node of this position in this state.
    async fn sees(&self, position: usize, state: NodeState) -> Result<()> {
        let (name, docker) = (self.cluster.nodes[position].name(), self.leader().await?);
        eventually_within(NOTICE_LIMIT, &format!("{name} is {state}"), async || {
            let seen = node(&docker, name).await?.status.and_then(|status| status.state);
            Ok((seen == Some(state)).then_some(()))
        })
        .await
    }

    async fn set_availability(
        &self,
        position: usize,
        availability: NodeSpecAvailabilityEnum,
    ) -> Result<()> {
        let docker = self.leader().await?;
        let node = node(&docker, self.cluster.nodes[position].name()).await?;
        let version = node.version.and_then(|version| version.index).unwrap_or_default();
        let version = UpdateNodeOptions { version: i64::try_from(version)? };
        let mut spec = node.spec.context("no spec")?;
        spec.availability = Some(availability);
        let id = node.id.context("no id")?;
        Ok(docker.update_node(&id, spec, version).await?)
    }

    /// Waits until the managers list a task in this state.
    async fn has_task(&self, state: TaskState) -> Result<()> {
        let docker = self.leader().await?;
        eventually_within(NOTICE_LIMIT, &format!("a task is {state}"), async || {
            let tasks = docker.list_tasks(None::<ListTasksOptions>).await?;
            let states = tasks.into_iter().filter_map(|task| task.status?.state);
            Ok(states.into_iter().any(|it| it == state).then_some(()))
        })
        .await
    }

    /// Kills the launcher of this runner, as the kernel does when memory is short.
    async fn kill_launcher(&self, stack: &Stack, runner: &str) -> Result<()> {
        let launchers = stack.containers.launchers().await?;
        let of_runner = launchers.into_iter().find(|launcher| runner_of(launcher) == runner);
        let id = of_runner.and_then(|launcher| launcher.id).context("no launcher")?;
        let docker = self.cluster.nodes[self.node_with(&id).await?].docker()?;
        let signal = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        Ok(docker.kill_container(&id, Some(signal)).await?)
    }
}

/// The node of this name.
async fn node(docker: &Docker, name: &str) -> Result<Node> {
    let nodes = docker.list_nodes(None::<ListNodesOptions>).await?;
    let named = nodes.into_iter().find(|node| {
        let description = node.description.as_ref();
        description.and_then(|it| it.hostname.as_deref()) == Some(name)
    });
    named.with_context(|| format!("no node {name}"))
}

/// Starts a job that outlasts the fault. Returns its id and the name of its runner.
async fn long_job(stack: &Stack) -> Result<(u64, String)> {
    let id = stack.queue(LONG_JOB_SECONDS);
    let runner = stack.in_progress(id).await?.runner.context("no runner")?.runner_name;
    stack.busy(id).await?;
    // If its Engine is killed, Swarm may leave a launcher there until the next sweep.
    eventually("the sweep of the sidecar's start is over", async || {
        let launchers = stack.containers.launchers().await?;
        Ok(launchers.iter().all(|launcher| !runner_of(launcher).is_empty()).then_some(()))
    })
    .await?;
    Ok((id, runner))
}

async fn succeeds(stack: &Stack, id: u64) -> Result<()> {
    eventually_within(NOTICE_LIMIT, &format!("job {id} is completed"), async || {
        let job = stack.sandbox.job(id).context("no such job")?;
        Ok((job.status == JobStatus::Completed).then_some(job))
    })
    .await
    .and_then(|job| {
        ensure!(job.conclusion == Some(Conclusion::Success), "{job:?}");
        Ok(())
    })
}

/// A worker cannot reach the managers until they count it as down.
pub(crate) async fn cut_off() -> Figures {
    let swarm = Swarm::start(1, 2).await;
    Stack::run(swarm.options("node.role==worker"), async |stack| {
        let mut account = Account::open(MAX);
        let (job, runner) = long_job(stack).await?;
        let position = swarm.node_with(&runner).await?;
        let node = &swarm.cluster.nodes[position];
        node.partition().await?;
        account.faults += 1;
        swarm.sees(position, NodeState::DOWN).await?;
        succeeds(stack, stack.queue(SHORT_JOB_SECONDS)).await?;
        let running = stack.sandbox.job(job).context("no job")?;
        ensure!(running.status == JobStatus::InProgress, "{running:?}");
        node.heal().await?;
        swarm.sees(position, NodeState::READY).await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// A worker is drained while it runs a job.
pub(crate) async fn drained() -> Figures {
    let swarm = Swarm::start(1, 2).await;
    Stack::run(swarm.options("node.role==worker"), async |stack| {
        let mut account = Account::open(MAX);
        let (job, runner) = long_job(stack).await?;
        let position = swarm.node_with(&runner).await?;
        swarm.set_availability(position, NodeSpecAvailabilityEnum::DRAIN).await?;
        account.faults += 1;
        for _ in 1..MAX {
            let (_, other) = long_job(stack).await?;
            ensure!(swarm.node_with(&other).await? != position, "{other} is on the drained node");
        }
        swarm.set_availability(position, NodeSpecAvailabilityEnum::ACTIVE).await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// The Engine of a worker is killed and started again, which ends its runner.
pub(crate) async fn worker_killed() -> Figures {
    let mut swarm = Swarm::start(1, 2).await;
    let options = swarm.options("node.role==worker");
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX).killing_work();
        let (job, runner) = long_job(stack).await?;
        let position = swarm.node_with(&runner).await?;
        let node = &mut swarm.cluster.nodes[position];
        node.kill().await?;
        account.faults += 1;
        node.start().await?;
        let ended = stack.completed(job).await?;
        // Docker Engine stops its containers when it starts.
        ensure!(ended.conclusion != Some(Conclusion::Success), "{ended:?}");
        swarm.sees(position, NodeState::READY).await?;
        succeeds(stack, stack.queue(SHORT_JOB_SECONDS)).await?;
        account.close(stack).await
    })
    .await
}

/// The Engine of the only manager is killed and started again.
pub(crate) async fn only_manager_killed() -> Figures {
    let mut swarm = Swarm::start(1, 2).await;
    let options = swarm.options("node.role==worker");
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let (job, _) = long_job(stack).await?;
        swarm.cluster.nodes[0].kill().await?;
        account.faults += 1;
        let waiting = stack.queue(SHORT_JOB_SECONDS);
        stack.waits_for(waiting, "back_off").await?;
        swarm.cluster.nodes[0].start().await?;
        succeeds(stack, waiting).await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// The Engine of the leader of three managers is killed. Another one leads before it is back.
pub(crate) async fn leader_killed() -> Figures {
    let mut swarm = Swarm::start(3, 0).await;
    let leader = swarm.cluster.leader().await.expect("a leader");
    let elsewhere = format!("node.hostname!={}", swarm.cluster.nodes[leader].name());
    let options = swarm.options(&elsewhere);
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let (job, _) = long_job(stack).await?;
        swarm.cluster.nodes[leader].kill().await?;
        account.faults += 1;
        succeeds(stack, stack.queue(SHORT_JOB_SECONDS)).await?;
        ensure!(swarm.cluster.leader().await? != leader);
        swarm.cluster.nodes[leader].start().await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// The launcher of a busy runner is killed.
pub(crate) async fn launcher_killed() -> Figures {
    let swarm = Swarm::start(1, 2).await;
    Stack::run(swarm.options("node.role==worker"), async |stack| {
        let mut account = Account::open(MAX);
        let (job, runner) = long_job(stack).await?;
        swarm.kill_launcher(stack, &runner).await?;
        account.faults += 1;
        eventually("another launcher waits for its end", async || {
            Ok((stack.containers.launchers().await?.len() == 1).then_some(()))
        })
        .await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// A launcher fails, and another manager leads before its service is removed: Swarm may start a
/// failed task again then.
pub(crate) async fn launcher_and_leader_killed() -> Figures {
    let mut swarm = Swarm::start(3, 0).await;
    let leader = swarm.cluster.leader().await.expect("a leader");
    let elsewhere = format!("node.hostname!={}", swarm.cluster.nodes[leader].name());
    let options = swarm.options(&elsewhere);
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let (job, runner) = long_job(stack).await?;
        swarm.kill_launcher(stack, &runner).await?;
        swarm.cluster.nodes[leader].kill().await?;
        account.faults += 2;
        ensure!(swarm.cluster.leader().await? != leader);
        swarm.cluster.nodes[leader].start().await?;
        succeeds(stack, job).await?;
        account.close(stack).await
    })
    .await
}

/// A launcher fails while the sidecar is down. Once another manager leads, Swarm starts it again,
/// perhaps on another node: it starts nothing where its runner has run, and GitHub refuses the
/// used configuration of a runner elsewhere.
pub(crate) async fn launcher_and_leader_killed_without_sidecar() -> Figures {
    let mut swarm = Swarm::start(3, 0).await;
    let leader = swarm.cluster.leader().await.expect("a leader");
    let elsewhere = format!("node.hostname!={}", swarm.cluster.nodes[leader].name());
    let options = swarm.options(&elsewhere).jit_reuses(1);
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let (job, runner) = long_job(stack).await?;
        stack.sidecar.kill().await?;
        swarm.kill_launcher(stack, &runner).await?;
        swarm.has_task(TaskState::FAILED).await?;
        swarm.cluster.nodes[leader].kill().await?;
        account.faults += 3;
        // The second launcher has nothing to do.
        swarm.has_task(TaskState::COMPLETE).await?;
        swarm.cluster.nodes[leader].start().await?;
        stack.sidecar.start().await?;
        succeeds(stack, job).await?;
        let ran = stack.sandbox.job(job).and_then(|job| job.runner).context("no runner")?;
        ensure!(ran.runner_name == runner, "it ran on {}", ran.runner_name);
        account.close(stack).await
    })
    .await
}
