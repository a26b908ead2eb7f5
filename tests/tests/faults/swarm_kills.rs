//! Kills of everything that a Docker Swarm needs: the sidecar, Engines, launchers.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::KillContainerOptionsBuilder;
use edgerunner_sandbox::JobStatus;
use edgerunner_testkit::containers::labelled;
use edgerunner_tests::{Containers, Options, Sidecar, Stack, eventually_within};
use fastrand::Rng;
use tokio::time::sleep;

use crate::account::{Account, redelivering};
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;
use crate::swarm::{RUNNER, Swarm, runner_of};

/// Managers run jobs too.
const MANAGERS: usize = 3;
const WORKERS: usize = 1;
const MAX: usize = 6;
const KILLS: usize = 50;
/// The most jobs that are not over, so that as many come as the machine can run.
const JOBS_MAX: usize = 2 * MAX;
/// Before each kill.
const PAUSE_MS: RangeInclusive<u64> = 200..=3_000;
/// How long the sidecar is away.
const AWAY_MS: RangeInclusive<u64> = 0..=900;
/// For something to kill.
const KILL_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(300);
/// A sweep spares what is not older.
const SPARED: Duration = Duration::from_secs(61);
/// For all nodes.
const SWEEP_LIMIT: Duration = Duration::from_secs(90);

/// At each moment at most one Engine is down, so that the managers have a quorum.
pub(crate) async fn run(plan: &Plan) -> Figures {
    let mut swarm = Swarm::start(MANAGERS, WORKERS).await;
    let options =
        Options::default().swarm(&swarm.cluster.swarm()).sidecar("RUNNER_MAX", &MAX.to_string());
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX).killing_work();
        let mut random = plan.random();
        let mut kills = Kills { swarm: &mut swarm, down: None, ended: HashSet::new() };
        for _ in 0..KILLS {
            let Stack { sandbox, sidecar, containers, .. } = stack;
            let load = load::bounded(sandbox, random.fork(), JOBS_MAX);
            tokio::select! {
                killed = kills.next(sidecar, containers, &mut random) => killed?,
                never = load => match never {},
                never = redelivering(sandbox) => match never {},
            }
            account.faults += 1;
        }
        kills.start_engine().await?;
        let ended = kills.ended;
        stack.sidecar.ready().await?;
        swept(stack).await?;
        let figures = account.close(stack).await?;
        for job in stack.sandbox.jobs() {
            let Some(runner) = &job.runner else { continue };
            ensure!(
                job.conclusion == Some(job.planned_conclusion)
                    || ended.contains(&runner.runner_name),
                "job {} on {}, whose Engine was not killed: {:?}",
                job.id,
                runner.runner_name,
                job.conclusion
            );
        }
        Ok(figures)
    })
    .await
}

/// Waits until all jobs are over, and until a sweep has removed what the kills left.
async fn swept(stack: &mut Stack) -> Result<()> {
    let over = eventually_within(END_LIMIT, "all jobs are over", async || {
        let jobs = stack.sandbox.jobs();
        let left = jobs.iter().filter(|it| it.status != JobStatus::Completed).count();
        ensure!(left == 0, "{left} of {} jobs are not completed", jobs.len());
        Ok(Some(()))
    });
    tokio::select! {
        over = over => over?,
        never = redelivering(&stack.sandbox) => match never {},
    }
    sleep(SPARED).await;
    // It sweeps when it starts.
    stack.sidecar.terminate().await?;
    stack.sidecar.start().await?;
    eventually_within(SWEEP_LIMIT, "everything that kills left is removed", async || {
        let containers = stack.containers.list().await?;
        let names: Vec<_> = containers.iter().map(|container| &container.names).collect();
        ensure!(names.is_empty(), "containers: {names:?}");
        stack.containers.nothing_else_is_left().await?;
        Ok(Some(()))
    })
    .await
}

struct Kills<'a> {
    swarm: &'a mut Swarm,
    /// The position of the node whose Engine is down.
    down: Option<usize>,
    /// Names of runners that may have ended because their Engine was killed.
    ended: HashSet<String>,
}

impl Kills<'_> {
    /// Kills one after a while.
    async fn next(
        &mut self,
        sidecar: &mut Sidecar,
        containers: &Containers,
        random: &mut Rng,
    ) -> Result<()> {
        if random.bool() {
            self.start_engine().await?;
        }
        sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
        match random.u8(0..3) {
            0 => {
                sidecar.kill().await?;
                sleep(Duration::from_millis(random.u64(AWAY_MS))).await;
                sidecar.spawn()
            }
            1 => self.kill_launcher(containers, random).await,
            _ => self.kill_engine(random).await,
        }
    }

    async fn kill_engine(&mut self, random: &mut Rng) -> Result<()> {
        self.start_engine().await?;
        let position = random.usize(..self.swarm.cluster.nodes.len());
        self.swarm.cluster.nodes[position].kill().await?;
        self.down = Some(position);
        Ok(())
    }

    /// Starts the Engine that is down, which stops its containers.
    async fn start_engine(&mut self) -> Result<()> {
        let Some(position) = self.down.take() else { return Ok(()) };
        let node = &mut self.swarm.cluster.nodes[position];
        node.start().await?;
        let runners = labelled(&node.docker()?, RUNNER).await?;
        self.ended.extend(runners.iter().map(|container| runner_of(container).to_owned()));
        Ok(())
    }

    async fn kill_launcher(&self, containers: &Containers, random: &mut Rng) -> Result<()> {
        let label = format!("dev.edgerunner.launcher={}.swarm", containers.instance());
        eventually_within(KILL_LIMIT, "a launcher is killed", async || {
            let mut launchers = Vec::new();
            for node in self.swarm.cluster.nodes.iter().filter(|node| node.is_running()) {
                let docker = node.docker()?;
                let mut here = labelled(&docker, &label).await?;
                here.retain(|it| it.state == Some(ContainerSummaryStateEnum::RUNNING));
                launchers.extend(here.into_iter().map(|launcher| (docker.clone(), launcher)));
            }
            let Some((docker, launcher)) = random.choice(launchers) else { return Ok(None) };
            let id = launcher.id.context("no id")?;
            let signal = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            docker.kill_container(&id, Some(signal)).await?;
            Ok(Some(()))
        })
        .await
    }
}
