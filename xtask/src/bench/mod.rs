//! What this costs and how fast it is, beside what people use now.

mod burst;
mod contest;
mod debian_webhook;
mod delivery;
mod fastapi;
mod flood;
mod growth;
mod hash;
mod latency;
mod launch;
mod load;
mod machine;
mod memory;
mod one_worker;
mod refusals;
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
use crate::ports::Ports;
use crate::programs::{Programs, Secrets};
use crate::progress::Step;
use crate::stack::Stack;
use crate::stop::Stop;
use crate::workspace;

use one_worker::OneWorker;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Accepted a second, beside FastAPI and Debian's webhook
    Webhooks,
    /// Refused a second, beside Envoy without the filter
    Refusals,
    /// Where the time of one delivery goes
    Latency,
    /// The filter's hash, beside OpenSSL
    Hash,
    /// Genuine deliveries beside a flood
    Flood,
    /// What Envoy holds after many deliveries, and what the largest hold up
    Growth,
    /// From 202 to a container that runs, beside Docker alone
    Launches,
    /// Many jobs at once, beside Docker alone
    Burst,
    /// What the sidecar holds with 10,000 jobs waiting
    Memory,
}

/// Measured at Envoys of one worker.
const ONE_WORKER: [Part; 5] =
    [Part::Refusals, Part::Latency, Part::Hash, Part::Flood, Part::Growth];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure this part alone; can be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
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

impl Args {
    fn any_of(&self, parts: &[Part]) -> bool {
        self.only.is_empty() || parts.iter().any(|part| self.only.contains(part))
    }
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return optimized(stop).await;
    }
    let directory = workspace::target().join("bench");
    let shown = workspace::shown(&directory);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let programs = Programs::get(stop, Profile::Release).await?;
    let mut engine = docker::engine(stop).await?;
    let mut tables = vec![machine::describe()];
    let mut result = Ok(());
    let in_one_stack = [&ONE_WORKER[..], &[Part::Webhooks, Part::Launches, Part::Burst]].concat();
    if args.any_of(&[Part::Launches, Part::Burst, Part::Memory]) {
        result = image::build(stop, &engine, Profile::Release).await;
    }
    if result.is_ok() && args.any_of(&in_one_stack) {
        let mut stack = stack(engine, directory.clone())?;
        let measured = measure(stop, &mut stack, &programs, &args, &mut tables);
        result = Box::pin(measured).await;
        engine = stack.leave().await;
    }
    // In a process that has done nothing else.
    if result.is_ok() && args.any_of(&[Part::Memory]) {
        let mut stack = stack(engine, directory)?;
        result = memory(stop, &mut stack, &programs, &mut tables).await;
        engine = stack.leave().await;
    }
    engine.stop().await;
    result?;
    println!("\n{}\n\nlogs: {shown}", tables.join("\n\n"));
    Ok(())
}

fn stack(engine: Engine, directory: PathBuf) -> Result<Stack> {
    let mut stack = Stack::new(engine, Ports::free()?, directory, "bench".to_owned());
    stack.configure_sidecar("RUNNER_MAX", burst::MAX.to_string());
    Ok(stack)
}

async fn measure(
    stop: &Stop,
    stack: &mut Stack,
    programs: &Programs,
    args: &Args,
    tables: &mut Vec<String>,
) -> Result<()> {
    let secrets = Secrets::random();
    let secret = secrets.webhook();
    let rounds = args.rounds;
    stack.start_with_sandbox(stop, programs, &secrets, machine::cores()).await?;
    if args.any_of(&[Part::Webhooks]) {
        let others = webhooks::Others::start(stop, stack, &secrets).await?;
        let measured = webhooks::measure(stack, &others, secret, rounds);
        tables.push(guarded(stop, stack, measured).await?);
    }
    if args.any_of(&ONE_WORKER) {
        let one_worker = OneWorker::start(stop, stack, programs, &secrets).await?;
        if args.any_of(&[Part::Refusals]) {
            let measured = refusals::measure(stack, &one_worker, secret, rounds);
            tables.push(guarded(stop, stack, measured).await?);
        }
        if args.any_of(&[Part::Latency]) {
            let measured = latency::measure(stack, &one_worker, secret, rounds);
            tables.push(guarded(stop, stack, measured).await?);
        }
        if args.any_of(&[Part::Hash]) {
            let measured = hash::measure(stop, stack, &one_worker, secret, rounds);
            tables.push(guarded(stop, stack, measured).await?);
        }
        if args.any_of(&[Part::Flood]) {
            let measured = flood::measure(one_worker.filter(), secret);
            tables.push(guarded(stop, stack, measured).await?.to_string());
        }
        if args.any_of(&[Part::Growth]) {
            let measured = growth::largest(one_worker.filter(), secret);
            tables.push(guarded(stop, stack, measured).await?);
            let measured = growth::measure(stack, &one_worker, secret, args.deliveries);
            tables.push(guarded(stop, stack, measured).await?);
        }
    }
    if args.any_of(&[Part::Launches]) {
        let measured = launch::measure(stack, &secrets, launch::PER_ROUND * rounds);
        tables.push(guarded(stop, stack, measured).await?.to_string());
    }
    if args.any_of(&[Part::Burst]) {
        let measured = burst::measure(stack, &secrets, args.burst);
        tables.push(guarded(stop, stack, measured).await?.to_string());
    }
    Ok(())
}

async fn memory(
    stop: &Stop,
    stack: &mut Stack,
    programs: &Programs,
    tables: &mut Vec<String>,
) -> Result<()> {
    stack.start_with_sandbox(stop, programs, &Secrets::random(), 1).await?;
    tables.push(guarded(stop, stack, memory::measure(stack)).await?);
    Ok(())
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
