//! The command line: its commands, and their exit codes.

mod backup;
mod block_on;
mod check;
mod client;
mod doctor;
mod drain;
mod github_addresses;
mod jobs;
mod manual;
mod output;
mod pools;
mod runners;
mod send;
mod signed_webhook;
mod status;
mod webhook;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{config::Config, serve, store::OpenError};
pub use manual::command;

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure, or doctor found a problem; 2 invalid command line; \
                          64 invalid configuration, or another process \
                          uses the store.";
const INVALID_CONFIGURATION: u8 = 64;

/// Autoscaler for self-hosted GitHub Actions runners, behind Envoy.
#[derive(Parser)]
#[command(name = "edgerunner", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file (TOML). You can also set each value as an environment variable named
    /// SECTION_SETTING, for example GITHUB_TOKEN for github.token.
    #[arg(long, short, global = true, env = "EDGERUNNER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive events and run jobs until SIGTERM or Ctrl-C. Send SIGHUP to reload pools.
    Serve,
    /// Check the configuration and report all errors.
    Check,
    /// Check everything that jobs need to run, and suggest a fix for each failure.
    Doctor(doctor::Arguments),
    /// Show pools, remaining API quota and current failures.
    Status(output::Output),
    /// Show pools and their labels.
    Pools(output::Output),
    /// Show waiting jobs with the reason for each, then the latest jobs.
    Jobs(output::Output),
    /// Show runners, including removed ones; show the log of a runner; remove a runner.
    Runners(runners::Arguments),
    /// Stop launching runners: idle ones are removed, busy ones finish their job. Lasts until
    /// `resume`, even after a restart.
    Drain(drain::Arguments),
    /// Launch runners again after `drain`.
    Resume(drain::Arguments),
    /// Create, list and test GitHub webhooks.
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Sign a payload the way GitHub does, and send it as a webhook.
    Send(send::Arguments),
    /// Copy the database to a file, even while `serve` is running.
    Backup(backup::Arguments),
    /// Write an Envoy filter that accepts webhooks only from GitHub's IP ranges.
    GithubAddresses(github_addresses::Arguments),
    /// Print a completion script for your shell.
    Completions(manual::Completions),
    /// Print the manual page, or write one page per command.
    Man(manual::Man),
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { config: file, command } = Cli::parse();
    let env = |name: &str| std::env::var(name).ok();
    let command = match command {
        Command::Completions(completions) => return end(completions.print()),
        Command::Man(man) => return end(man.write()),
        Command::Doctor(arguments) => return end(doctor::run(file.as_deref(), &env, &arguments)),
        other => other,
    };
    let config = match command {
        Command::Serve | Command::Check => {
            Config::load_on_this_machine(file.as_deref(), &env, &variables())
        }
        _ => Config::load(file.as_deref(), &env),
    };
    match config {
        Ok(config) => end(run(command, config, file)),
        Err(errors) => {
            eprintln!("edgerunner: invalid configuration:\n{errors}");
            ExitCode::from(INVALID_CONFIGURATION)
        }
    }
}

/// The names of all environment variables.
fn variables() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}

fn run(command: Command, config: Config, file: Option<PathBuf>) -> Result<()> {
    match command {
        Command::Serve => serve::serve(config, file),
        Command::Check => check::report_valid(&config),
        Command::Status(output) => status::show(&config, output),
        Command::Pools(output) => pools::show(&config, output),
        Command::Jobs(output) => jobs::show(&config, output),
        Command::Runners(arguments) => arguments.run(&config),
        Command::Drain(arguments) => drain::drain(&config, &arguments),
        Command::Resume(arguments) => drain::resume(&config, &arguments),
        Command::Webhook(command) => command.run(&config),
        Command::Send(arguments) => send::send(&config, &arguments),
        Command::Backup(arguments) => backup::backup(&config, &arguments),
        Command::GithubAddresses(arguments) => github_addresses::write(&config, &arguments),
        Command::Completions(_) | Command::Man(_) | Command::Doctor(_) => Ok(()),
    }
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgerunner: {error:#}");
            let store = error.downcast_ref::<OpenError>();
            match store.is_some_and(OpenError::is_in_use) {
                true => ExitCode::from(INVALID_CONFIGURATION),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
