//! What this costs and how fast it is, beside what people use now.

mod delivery;
mod fastapi;
mod launch;
mod load;
mod machine;
mod spread;
mod webhooks;

use std::future::Future;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::build::{Profile, cargo};
use crate::command;
use crate::docker;
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
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return optimized(stop).await;
    }
    let directory = workspace::target().join("bench");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let packages = fastapi::install(stop).await?;
    let programs = Programs::get(stop, Profile::Release).await?;
    let engine = docker::engine(stop).await?;
    let mut stack = Stack::new(engine, Ports::free()?, directory, "bench".to_owned());

    let result = async {
        image::build(stop, stack.engine(), Profile::Release).await?;
        let secrets = Secrets::random();
        let ports = *stack.ports();
        let directory = stack.directory().to_owned();
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
        let launches =
            guarded(stop, &stack, launch::measure(&stack, launch::PER_ROUND * args.rounds)).await?;
        println!("\n{}\n\n{webhooks}\n\n{launches}", machine::describe());
        println!("\nlogs: {}", workspace::shown(&directory));
        Ok(())
    }
    .await;
    stack.end().await;
    result
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
