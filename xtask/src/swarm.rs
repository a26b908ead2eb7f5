//! The end-to-end tests that run a second time, with runners on a Docker Swarm.

use std::path::Path;

use anyhow::Result;
use edgerunner_testkit::Cluster;
use edgerunner_testkit::programs::{LAUNCHER_IMAGE, RUNNER_IMAGE};
use tokio::process::Command;

use crate::image;
use crate::progress::Step;
use crate::stop::Stop;
use crate::test::show;

/// The variable with the directory of the Engines' programs.
pub(crate) const PROGRAMS: &str = "EDGERUNNER_SWARM_PROGRAMS";

const MANAGERS: usize = 1;
const WORKERS: usize = 2;

/// Tests whose runners can be on any node.
const MODULES: [&str; 8] = [
    "containers::",
    "dind::",
    "egress::a_hostile_job",
    "hooks::",
    "images::",
    "machine::a_runner_that_lacked_memory",
    "recovery::",
    "scheduling::",
];

/// Modules of tests that start a Swarm of their own, or another newer Engine.
pub(crate) const OWN_MODULES: [&str; 4] = ["cdi::", "inner_egress::", "swarm::", "swarm_docs::"];

/// Tests of these modules that a Swarm cannot pass, and why.
const DOCKER_ALONE: [(&str, &str); 4] = [
    ("images::a_tag_that_moved_brings_the_next_runner_its_new_image", "each node pulls for itself"),
    (
        "images::a_runner_that_github_refuses_as_too_old_brings_the_next_one_its_new_image",
        "each node pulls for itself",
    ),
    (
        "images::a_pools_image_is_pulled_before_its_first_job",
        "each node pulls for itself, once a runner is placed there",
    ),
    (
        "recovery::a_docker_that_is_absent_at_the_start_is_waited_for",
        "it moves the socket of the one Engine",
    ),
];

/// Runs these tests on a Swarm of three Engines, which all of them share.
pub(crate) async fn run(
    stop: &Stop,
    programs: &Path,
    mut tests: Command,
    name: Option<&str>,
) -> Result<()> {
    let step = Step::start("Swarm of three Engines");
    let images = [RUNNER_IMAGE, LAUNCHER_IMAGE, image::DIND, image::EGRESS, image::HOSTILE];
    let cluster = stop.or(Cluster::start(programs, MANAGERS, WORKERS, &images)).await?;
    step.done("");
    cluster.swarm().pass_to(&mut tests)?;
    match name {
        Some(name) => tests.arg(name),
        None => tests.args(MODULES),
    };
    for (test, reason) in DOCKER_ALONE {
        eprintln!("not on Swarm: {test}: {reason}");
        tests.args(["--skip", test]);
    }
    show(stop, tests).await
}
