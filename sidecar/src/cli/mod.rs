//! The command line: its commands, and their exit codes.

mod ask;
mod audit;
mod backup;
mod block_on;
mod browser;
mod check;
mod client;
mod config_file;
mod doctor;
mod drain;
mod egress;
mod findings;
mod github_addresses;
mod init;
mod jobs;
mod launch;
mod manual;
mod nodes;
mod output;
mod pools;
mod report;
mod retry;
mod runners;
mod send;
mod sidecars;
mod signed_webhook;
mod status;
mod store;
mod terminal;
mod top;
mod webhook;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{
    CommandFactory as _, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser as _},
    error::ErrorKind,
};

use crate::{config::Config, serve, store::OpenError};
use client::Client;
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
    /// Configuration file (TOML). Defaults to the environment variable EDGERUNNER_CONFIG, then
    /// to /etc/edgerunner/edgerunner.toml if it exists. You can also set each value as an
    /// environment variable named SECTION_SETTING, for example GITHUB_TOKEN for github.token.
    #[arg(long, short, global = true, env = config_file::VARIABLE, value_name = "FILE",
        value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// URL of the running sidecar, for status, top, pools, jobs, runners, nodes, sidecars, report,
    /// egress, drain, resume, retry and audit. Defaults to the configured server.http_address. With it, only a configuration file
    /// that you name is read.
    #[arg(long, global = true, value_name = "URL", value_parser = client::server_url)]
    server: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up edgerunner: asks, and writes the configuration, the secrets and Envoy's file.
    Init(init::Arguments),
    /// Receive events and run jobs until SIGTERM or Ctrl-C. Send SIGHUP to reload pools.
    Serve,
    /// Check the configuration and report all errors.
    Check,
    /// Check everything that jobs need to run, and suggest a fix for each failure.
    Doctor(doctor::Arguments),
    /// Show what needs attention and what to do about it, then pools, remaining API quota, sidecars
    /// and nodes. Exits with 0 if the sidecar has answered, whatever is broken.
    Status(output::Output),
    /// Show what needs attention, pools, and waiting and running jobs on the whole terminal.
    Top,
    /// Show pools and their labels; show one pool.
    Pools(pools::Arguments),
    /// Show waiting jobs with the reason for each, then the latest jobs; show one job.
    Jobs(jobs::Arguments),
    /// Show runners; show the log of a runner; remove a runner.
    Runners(runners::Arguments),
    /// Show the nodes of a Docker Swarm; stop or resume launches on a node.
    Nodes(nodes::Arguments),
    /// Show the sidecars that share a Postgres store, and which of them plans.
    Sidecars(output::Output),
    /// Show what completed jobs used, by repository, workflow, pool or label.
    Report(report::Arguments),
    /// Show connections that the `egress` of pools does not permit; suggest what to add to it.
    Egress(egress::Arguments),
    /// Stop launching runners: idle ones are removed, busy ones finish their job. Lasts until
    /// `resume`, even after a restart.
    Drain(drain::Arguments),
    /// Launch runners again after `drain`.
    Resume(drain::Arguments),
    /// Try launches that wait after a failure again now.
    Retry,
    /// Show who changed what: drained, resumed, retried and removed.
    Audit(output::Output),
    /// Create, list and test GitHub webhooks.
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Sign a payload the way GitHub does, and send it as a webhook.
    Send(send::Arguments),
    /// Copy the database to a file, even while `serve` is running.
    Backup(backup::Arguments),
    /// Move the store from SQLite to Postgres.
    #[command(subcommand)]
    Store(store::Command),
    /// Write an Envoy filter that accepts webhooks only from GitHub's IP ranges.
    GithubAddresses(github_addresses::Arguments),
    /// Carry out one task on a node of a Docker Swarm. Docker Swarm runs it; you do not.
    Launch(launch::Arguments),
    /// Print a completion script for your shell.
    Completions(manual::Completions),
    /// Print the manual page, or write one page per command.
    Man(manual::Man),
}

impl Command {
    /// Whether it calls the API of a running sidecar, and does nothing else.
    fn calls_sidecar(&self) -> bool {
        if let Self::Egress(arguments) = self {
            return arguments.calls_sidecar();
        }
        matches!(
            self,
            Self::Status(_)
                | Self::Top
                | Self::Pools(_)
                | Self::Jobs(_)
                | Self::Runners(_)
                | Self::Nodes(_)
                | Self::Sidecars(_)
                | Self::Report(_)
                | Self::Drain(_)
                | Self::Resume(_)
                | Self::Retry
                | Self::Audit(_)
        )
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { config: file, server, command } = Cli::parse();
    let env = |name: &str| std::env::var(name).ok();
    let command = match command {
        Command::Completions(completions) => return end(completions.print()),
        Command::Man(man) => return end(man.write()),
        Command::Launch(arguments) => return arguments.run(&env),
        Command::Init(arguments) if server.is_none() => return end(arguments.run(&env)),
        other => other,
    };
    if server.is_some() && !command.calls_sidecar() {
        let problem = "--server is only for status, top, pools, jobs, runners, nodes, sidecars, report, \
             egress, drain, resume, retry and audit";
        Cli::command().error(ErrorKind::ArgumentConflict, problem).exit();
    }
    let file = match (&server, command.calls_sidecar()) {
        // The default file has the token of the sidecar on this machine, which is not for others.
        (Some(_), _) => config_file::named(file),
        (None, true) => config_file::if_readable(file, config_file::DEFAULT.as_ref()),
        (None, false) => config_file::find(file, config_file::DEFAULT.as_ref()),
    };
    if let Command::Doctor(arguments) = command {
        return end(doctor::run(file.as_deref(), &env, &arguments));
    }
    let config = match command {
        Command::Serve | Command::Check => {
            Config::load_on_this_machine(file.as_deref(), &env, &variables())
        }
        _ => Config::load(file.as_deref(), &env),
    };
    match config {
        Ok(config) => end(run(command, config, file, server.as_deref())),
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

fn run(
    command: Command,
    config: Config,
    file: Option<PathBuf>,
    server: Option<&str>,
) -> Result<()> {
    let client = || Client::new(&config, server);
    match command {
        Command::Serve => serve::serve(config, file),
        Command::Check => check::report_valid(&config, file.as_deref()),
        Command::Status(output) => status::show(&client(), output),
        Command::Top => top::run(&client()),
        Command::Pools(arguments) => arguments.run(&client()),
        Command::Jobs(arguments) => arguments.run(&client()),
        Command::Runners(arguments) => arguments.run(&client()),
        Command::Nodes(arguments) => arguments.run(&client()),
        Command::Sidecars(output) => sidecars::show(&client(), output),
        Command::Report(arguments) => arguments.run(&client()),
        Command::Egress(arguments) => arguments.run(&config, &client()),
        Command::Drain(arguments) => drain::drain(&client(), &arguments),
        Command::Resume(arguments) => drain::resume(&client(), &arguments),
        Command::Retry => retry::retry(&client()),
        Command::Audit(output) => audit::show(&client(), output),
        Command::Webhook(command) => command.run(&config),
        Command::Send(arguments) => send::send(&config, &arguments),
        Command::Backup(arguments) => backup::backup(&config, &arguments),
        Command::Store(command) => command.run(&config),
        Command::GithubAddresses(arguments) => github_addresses::write(&config, &arguments),
        Command::Init(_)
        | Command::Launch(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Doctor(_) => Ok(()),
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

/// The options of one command.
#[cfg(test)]
fn arguments<A: clap::Args>(options: &[&str]) -> Result<A, clap::Error> {
    let command = A::augment_args(clap::Command::new("command").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(options)?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
