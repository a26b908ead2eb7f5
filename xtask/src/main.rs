//! `cargo xtask`: builds, runs, tests and packages edgerunner.

mod apt;
mod bench;
mod build;
mod cargo;
mod command;
mod debs;
mod docker;
mod envoy;
mod envoy_files;
mod formats;
mod image;
mod kubernetes;
mod package;
mod packages;
mod progress;
mod python;
mod report;
mod rootfs;
mod smoke;
mod soak;
mod stop;
mod swarm;
mod target;
mod test;
mod tools;
mod up;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::stop::{Interrupted, Stop};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs, tests, measures and packages edgerunner")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start everything on this machine and run a first job
    Up(up::Args),
    /// Run all checks and tests, or one part of them, and install what they need
    Test(test::Args),
    /// Inject faults for minutes and check that no job is lost
    Soak(soak::Args),
    /// Run the benchmarks, each compared with another program
    Bench(bench::Args),
    /// Build the Envoy filter and print its path
    Wasm,
    /// Build the files of a release for this machine's architecture
    Package(package::Args),
    /// Generate the configurations in envoy/ from their template
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
        Task::Up(args) => Box::pin(up::run(&stop, args)).await,
        Task::Test(args) => Box::pin(test::run(&stop, args)).await,
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
