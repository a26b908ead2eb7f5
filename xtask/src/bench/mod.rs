//! What this costs and how fast it is, beside what people use now.

mod burst;
mod delivery;
mod fastapi;
mod flood;
mod growth;
mod launch;
mod load;
mod machine;
mod memory;
mod spread;
mod webhooks;

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::{Profile, cargo};
use crate::command;
use crate::docker::{self, Engine};
use crate::image;
use crate::ports::{Ports, local};
use crate::programs::{Programs, Secrets};
use crate::progress::Step;
use crate::stack::Stack;
use crate::stop::Stop;
use crate::workspace;

const ENVOY_WORKERS: u32 = 1;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each measurement is repeated, the two sides taking turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Jobs that come at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    burst: u32,
    /// Deliveries after which memory is measured again
    #[arg(long, default_value_t = 200_000)]
    deliveries: usize,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return optimized(stop).await;
    }
    let directory = workspace::target().join("bench");
    let shown = workspace::shown(&directory);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let packages = fastapi::install(stop).await?;
    let programs = Programs::get(stop, Profile::Release).await?;
    let engine = docker::engine(stop).await?;
    let mut stack = Stack::new(engine, Ports::free()?, directory.clone(), "bench".to_owned());
    stack.configure_sidecar("RUNNER_MAX", burst::MAX.to_string());

    let result = async {
        image::build(stop, stack.engine(), Profile::Release).await?;
        let secrets = Secrets::random();
        let ports = *stack.ports();
        stack.start_with_sandbox(stop, &programs, &secrets, ENVOY_WORKERS).await?;
        let fastapi_port = Ports::free()?.http;
        let gunicorn = fastapi::command(&packages, fastapi_port, &secrets);
        stack.start(stop, "gunicorn", gunicorn, (local(fastapi_port), "/openapi.json")).await?;

        let webhooks = webhooks::measure(
            local(ports.envoy),
            local(fastapi_port),
            secrets.webhook(),
            args.rounds,
        );
        let webhooks = guarded(stop, &stack, webhooks).await?;
        let launches = guarded(
            stop,
            &stack,
            launch::measure(&stack, &secrets, launch::PER_ROUND * args.rounds),
        )
        .await?;
        let address = local(ports.envoy);
        let flood = guarded(stop, &stack, flood::measure(address, secrets.webhook())).await?;
        let largest = guarded(stop, &stack, growth::largest(address, secrets.webhook())).await?;
        let growth = growth::measure(&stack, secrets.webhook(), args.deliveries);
        let growth = guarded(stop, &stack, growth).await?;
        let burst = guarded(stop, &stack, burst::measure(&stack, &secrets, args.burst)).await?;
        Ok(format!(
            "{}\n\n{webhooks}\n\n{flood}\n\n{largest}\n{growth}\n\n{launches}\n\n{burst}",
            machine::describe()
        ))
    }
    .await;
    let engine = stack.leave().await;
    let (engine, result) = match result {
        Ok(tables) => {
            let (engine, memory) = with_nothing_before(stop, engine, &programs, directory).await;
            (engine, memory.map(|memory| format!("{tables}\n\n{memory}")))
        }
        error => (engine, error),
    };
    engine.stop().await;
    println!("\n{}\n\nlogs: {shown}", result?);
    Ok(())
}

/// Memory is measured in a process that has done nothing else.
async fn with_nothing_before(
    stop: &Stop,
    engine: Engine,
    programs: &Programs,
    directory: PathBuf,
) -> (Engine, Result<String>) {
    let ports = match Ports::free() {
        Ok(ports) => ports,
        Err(error) => return (engine, Err(error)),
    };
    let mut stack = Stack::new(engine, ports, directory, "bench".to_owned());
    stack.configure_sidecar("RUNNER_MAX", burst::MAX.to_string());
    let result = async {
        stack.start_with_sandbox(stop, programs, &Secrets::random(), ENVOY_WORKERS).await?;
        guarded(stop, &stack, memory::measure(&stack)).await
    }
    .await;
    (stack.leave().await, result)
}

/// Numbers of a half-dead set-up would be worth nothing.
async fn guarded<T>(
    stop: &Stop,
    stack: &Stack,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let work = async {
        tokio::select! {
            result = work => result,
            error = stack.died() => Err(error),
        }
    };
    stop.or(work).await
}

/// Goes on as an optimized build of this program: a slow load generator would
/// take the processor from what it measures.
async fn optimized(stop: &Stop) -> Result<()> {
    let mut step = Step::start("building the load generator");
    let build = cargo(["build", Profile::Release.flag(), "--package=xtask"]);
    command::run(stop, &mut step, build).await?;
    step.done("");
    let error = std::process::Command::new(Profile::Release.directory().join("xtask"))
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot go on as the optimized build")
}
