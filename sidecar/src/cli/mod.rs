//! The command line.

mod backup;
mod check;
mod client;
mod delivery;
mod doctor;
mod documents;
mod drain;
mod github_addresses;
mod jobs;
mod output;
mod pools;
mod runners;
mod runtime;
mod send;
mod status;
mod webhook;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{config::Config, serve};
pub use documents::command;

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure, or something that doctor found; 2 wrong command line; \
                          64 wrong configuration.";
const WRONG_CONFIGURATION: u8 = 64;

/// Autoscaler for GitHub Actions behind Envoy.
#[derive(Parser)]
#[command(name = "edgerunner", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file (TOML). Every setting can also come from the environment, as
    /// section and field in capitals: GITHUB_TOKEN is github.token.
    #[arg(long, short, global = true, env = "EDGERUNNER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive events and run jobs until SIGTERM or Ctrl-C. SIGHUP reads the pools anew.
    Serve,
    /// Read the configuration and say what is wrong with it.
    Check,
    /// Look at everything that jobs need to run, and say how to mend what is wrong.
    Doctor(doctor::Options),
    /// Show pools, what GitHub still lets us ask, and what is failing.
    Status(output::Output),
    /// Show pools, with the labels that jobs ask for.
    Pools(output::Output),
    /// Show jobs: the waiting ones with the reason, then the latest.
    Jobs(output::Output),
    /// Show runners, gone ones included; or a runner's log; or remove one.
    Runners(runners::Arguments),
    /// Launch nothing more: idle runners go, busy ones finish. Lasts until resume, over
    /// restarts too.
    Drain(drain::Choice),
    /// Launch again what is missing.
    Resume(drain::Choice),
    /// Set up webhooks at GitHub and have them sent.
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Sign a file as GitHub signs a webhook, and send it.
    Send(send::Arguments),
    /// Copy the store to a file, also while `serve` runs.
    Backup(backup::Arguments),
    /// Have Envoy take webhooks from GitHub's own addresses alone.
    GithubAddresses(github_addresses::Destination),
    /// Print what makes a shell complete these commands.
    Completions(documents::Completions),
    /// Print the manual page, or write one for each command.
    Man(documents::Man),
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { config: file, command } = Cli::parse();
    let env = |name: &str| std::env::var(name).ok();
    let command = match command {
        Command::Completions(completions) => return end(completions.print()),
        Command::Man(man) => return end(man.write()),
        Command::Doctor(options) => return end(doctor::run(file.as_deref(), &env, &options)),
        needs_configuration => needs_configuration,
    };
    let config = match command {
        Command::Serve | Command::Check => Config::load_to_serve(file.as_deref(), &env),
        _ => Config::load(file.as_deref(), &env),
    };
    match config {
        Ok(config) => end(run(command, config, file)),
        Err(mistakes) => {
            eprintln!("edgerunner: the configuration is wrong:\n{mistakes}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
    }
}

fn run(command: Command, config: Config, file: Option<PathBuf>) -> Result<()> {
    match command {
        Command::Serve => serve::serve(config, file),
        Command::Check => check::approve(&config),
        Command::Status(output) => status::show(&config, output),
        Command::Pools(output) => pools::show(&config, output),
        Command::Jobs(output) => jobs::show(&config, output),
        Command::Runners(arguments) => arguments.run(&config),
        Command::Drain(choice) => drain::drain(&config, &choice),
        Command::Resume(choice) => drain::resume(&config, &choice),
        Command::Webhook(command) => command.run(&config),
        Command::Send(arguments) => send::send(&config, &arguments),
        Command::Backup(arguments) => backup::backup(&config, &arguments),
        Command::GithubAddresses(destination) => github_addresses::write(&config, &destination),
        Command::Completions(_) | Command::Man(_) | Command::Doctor(_) => Ok(()),
    }
}

fn end(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads what we print has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgerunner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
