//! Set-up and orchestration behind `cargo xtask`.

mod apt;
mod bench;
mod browser;
mod build;
mod command;
mod compose;
mod docker;
mod envoy;
mod envoy_config;
mod envoy_files;
mod formats;
mod http;
mod image;
mod journey;
mod package;
mod packages;
mod ports;
mod process;
mod production;
mod programs;
mod progress;
mod promtool;
mod python;
mod registry;
mod rootfs;
mod sandbox;
mod schemathesis;
mod soak;
mod stack;
mod stop;
mod target;
mod test;
mod up;
mod wasm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::stop::{Interrupted, Stop};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs, tests and measures edgerunner")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start everything on this machine and show a first job on its way
    Up(up::Args),
    /// Format, lints, unit and end-to-end tests, with everything they need
    Test,
    /// Take away what edgerunner stands on, for minutes, and count its jobs
    Soak(soak::Args),
    /// Measure beside FastAPI, webhook, plain Envoy, OpenSSL and the bare Docker API
    Bench(bench::Args),
    /// Build the Envoy filter and print where it is
    Wasm,
    /// Build what a release consists of, for this machine's architecture
    Package(package::Args),
    /// Write the configurations in envoy/ from their template
    Envoy,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = match cli.task {
        Task::Up(args) => up::run(&stop, args).await,
        Task::Test => test::run(&stop).await,
        Task::Soak(args) => soak::run(&stop, args).await,
        Task::Bench(args) => bench::run(&stop, args).await,
        Task::Wasm => wasm::run(&stop).await,
        Task::Package(args) => package::run(&stop, args).await,
        Task::Envoy => envoy_files::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
