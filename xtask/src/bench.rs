//! Builds and starts the benchmarks, which are a separate program.

use anyhow::Result;
use clap::ValueEnum;
use edgerunner_testkit::workspace;

use crate::apt;
use crate::build;
use crate::cargo::{Profile, cargo};
use crate::command;
use crate::debs;
use crate::docker;
use crate::image;
use crate::kubernetes;
use crate::packages;
use crate::progress::Step;
use crate::python;
use crate::stop::Stop;
use crate::swarm;
use crate::tools;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Webhooks per second, compared with FastAPI and Debian's webhook
    Webhooks,
    /// Deliveries that fail during a restart, compared with FastAPI
    Restart,
    /// Time from 202 to a running container, compared with the Docker API alone
    Launch,
    /// Many jobs at once, compared with the Docker API alone
    Burst,
    /// The sidecar's memory with 10,000 queued jobs
    Memory,
    /// Deliveries per second that are on disk, with SQLite and with Postgres
    Store,
    /// A download of a job with `egress`, compared with a direct one
    Egress,
    /// Runners on a Docker Swarm of three Engines, compared with those Engines alone
    Swarm,
    /// Time from 202 to a running pod, compared with `kubectl run`. It needs a cluster, as `cargo xtask
    /// test kubernetes` does, and runs only by its name
    Kubernetes,
    /// The filter's SHA-256, compared with OpenSSL
    Hash,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this part; can be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// How often to repeat each measurement, with the sides taking turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Number of jobs in the burst
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    burst: u32,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    let all = Part::value_variants().iter().copied();
    let all: Vec<Part> = all.filter(|part| *part != Part::Kubernetes).collect();
    let parts = if args.only.is_empty() { &all } else { &args.only };
    if parts.contains(&Part::Store) {
        store(stop, args.rounds).await?;
    }
    let parts: Vec<Part> = parts.iter().copied().filter(|part| *part != Part::Store).collect();
    if parts.is_empty() {
        return Ok(());
    }
    // Unoptimized, the load generator would use the processor time that it measures.
    let profile = Profile::Release;
    let mut step = Step::start("building the benchmarks");
    let build = ["build", profile.flag(), "--package=edgerunner-bench"];
    command::run(stop, &mut step, cargo(build)).await?;
    step.done("");
    let mut bench = tokio::process::Command::new(profile.directory().join("edgerunner-bench"));
    let programs = build::programs(stop, profile).await?;
    programs.pass_to(&mut bench);
    if parts.contains(&Part::Webhooks) || parts.contains(&Part::Restart) {
        let requirements = workspace::root().join("bench/fastapi/requirements.txt");
        let packages = python::packages(stop, "fastapi", &requirements).await?;
        bench
            .env("EDGERUNNER_PYTHON", packages.python)
            .env("EDGERUNNER_FASTAPI", packages.directory);
    }
    if parts.contains(&Part::Webhooks) {
        apt::program(stop, "webhook", "webhook").await?;
    }
    if parts.contains(&Part::Swarm) {
        bench.env(swarm::PROGRAMS, debs::engine(stop).await?);
    }
    if parts.contains(&Part::Egress) {
        bench
            .env("EDGERUNNER_EGRESS_IMAGE", image::EGRESS)
            .env("EDGERUNNER_HOSTILE_IMAGE", image::HOSTILE);
    }
    if parts.contains(&Part::Hash) {
        apt::program(stop, "openssl", "openssl").await?;
    }
    let kubernetes = match parts.contains(&Part::Kubernetes) {
        true => kubernetes::programs(stop).await?,
        false => None,
    };
    let names: Vec<_> = parts.iter().filter_map(ValueEnum::to_possible_value).collect();
    let names: Vec<_> = names.iter().map(|part| part.get_name()).collect();
    bench
        .env("EDGERUNNER_BENCH_PARTS", names.join(","))
        .env("EDGERUNNER_BENCH_ROUNDS", args.rounds.to_string())
        .env("EDGERUNNER_BENCH_BURST", args.burst.to_string());
    let engine = docker::engine(stop).await?;
    let result = async {
        image::build(stop, &engine, profile).await?;
        if parts.contains(&Part::Egress) {
            image::build_egress(stop, &engine, &programs.envoy).await?;
        }
        if parts.contains(&Part::Swarm) {
            packages::build_images_with_libraries(stop, &engine, &programs).await?;
        }
        let mut cluster = None;
        if parts.contains(&Part::Kubernetes) {
            kubernetes::image(stop, &engine, kubernetes.as_deref()).await?;
            let started = Box::pin(kubernetes::Cluster::start(stop, kubernetes.as_deref())).await?;
            cluster.insert(started).access.pass_to(&mut bench)?;
        }
        let result = command::show(stop, bench).await;
        drop(cluster);
        result
    }
    .await;
    engine.stop().await;
    result
}

/// It measures a part of the sidecar, not the program.
async fn store(stop: &Stop, rounds: u32) -> Result<()> {
    tools::postgres(stop).await?;
    let bench = ["bench", "--package=edgerunner", "--features=bench", "--bench=accept"];
    let mut bench = cargo(bench);
    bench.env("EDGERUNNER_BENCH_ROUNDS", rounds.to_string());
    command::show(stop, bench).await
}
