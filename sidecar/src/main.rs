//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use edgerunner::{addresses, config::Config, control, inspect, logging, serve};

/// Autoscaler for GitHub Actions behind Envoy.
///
/// Exit codes: 0 success; 1 failure; 2 wrong command line; 64 wrong configuration.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
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
    /// Receive events and run jobs until SIGTERM or Ctrl-C.
    Serve,
    /// Read the configuration and say what is wrong with it.
    Check,
    /// Show jobs: the waiting ones with the reason, then the latest.
    Jobs(inspect::Output),
    /// Show runners, gone ones included.
    Runners(inspect::Output),
    /// Show pools, what GitHub still lets us ask, and what is failing.
    Status(inspect::Output),
    /// Launch nothing more: idle runners go, busy ones finish. Lasts until resume, over
    /// restarts too.
    Drain(control::Choice),
    /// Launch again what is missing.
    Resume(control::Choice),
    /// Have Envoy take webhooks from GitHub's own addresses alone.
    GithubAddresses(addresses::Destination),
}

const WRONG_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env = |name: &str| std::env::var(name).ok();
    let config = match &cli.command {
        Command::Serve | Command::Check => Config::load_to_serve(cli.config.as_deref(), &env),
        _ => Config::load(cli.config.as_deref(), &env),
    };
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("edgerunner: the configuration is wrong:\n{mistakes}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    let done = match cli.command {
        Command::Serve => {
            logging::init(&config.log);
            serve::serve(config)
        }
        Command::Check => {
            println!("The configuration is right. Pools: {}", inspect::pools(&config));
            Ok(())
        }
        Command::Jobs(output) => inspect::jobs(&config, output),
        Command::Runners(output) => inspect::runners(&config, output),
        Command::Status(output) => inspect::status(&config, output),
        Command::Drain(choice) => control::drain(&config, &choice),
        Command::Resume(choice) => control::resume(&config, &choice),
        Command::GithubAddresses(destination) => addresses::write(&config, &destination),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgerunner: {error:#}");
            ExitCode::FAILURE
        }
    }
}
