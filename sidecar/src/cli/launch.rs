//! `edgerunner launch`: carries out one task on a node of a Docker Swarm.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::launcher;

const NOTES: &str = "\
Exit codes: 0 the task was carried out, or must not be started again; 70 nothing was started.

Prints what happened as lines of JSON on standard output, and logs to standard error. Uses the \
                     Docker Engine of its own node, whose socket is in the environment variable \
                     DOCKER_HOST (unix:///var/run/docker.sock if it is not set). Reads no \
                     configuration and needs no credential for GitHub.";

#[derive(Args)]
#[command(after_help = NOTES)]
pub(super) struct Arguments {
    /// File with the task, which `serve` wrote. It contains secrets.
    #[arg(long, value_name = "FILE")]
    order: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, env: &dyn Fn(&str) -> Option<String>) -> ExitCode {
        launcher::launch(&self.order, env("DOCKER_HOST").as_deref())
    }
}
