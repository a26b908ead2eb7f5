//! Faults while jobs come in: no job may be lost, none may run twice, and nothing may be
//! left over.
//!
//! It does not use Rust's test harness, since each scenario prints figures. `cargo xtask
//! test` runs the short form. `cargo xtask soak` runs the long one by setting
//! `EDGERUNNER_SOAK` to a seed. The first argument selects scenarios by a part of their
//! names.

mod account;
mod database;
mod disk;
mod docker;
mod failover;
mod figures;
mod github;
mod kills;
mod kubernetes;
mod load;
mod parked;
mod plan;
mod small_disk;
mod swarm;
mod swarm_kills;
mod webhooks;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use figures::{Outcome, table};
use plan::Plan;

type Scenario = fn(&Plan) -> Outcome;

const SHORT: [(&str, Scenario); 25] = [
    ("sidecar killed", |plan| run(kills::run(plan))),
    ("sidecar killed, on Podman", |plan| run(kills::run_on_podman(plan))),
    ("parked runners lost", |plan| run(parked::run(plan))),
    ("Docker does not answer", |plan| run(docker::does_not_answer(plan))),
    ("GitHub fails", |plan| run(github::run(plan))),
    ("webhooks lost, doubled, reordered", |plan| run(webhooks::run(plan))),
    ("disk full", |plan| run(disk::run(plan))),
    ("database damaged", |plan| run(database::run(plan))),
    ("one of two sidecars fails", |plan| run(failover::run(plan, 2))),
    ("one of three sidecars fails", |plan| run(failover::run(plan, 3))),
    ("Swarm: worker cut off", |_| run(swarm::cut_off())),
    ("Swarm: worker drained", |_| run(swarm::drained())),
    ("Swarm: worker killed", |_| run(swarm::worker_killed())),
    ("Swarm: only manager killed", |_| run(swarm::only_manager_killed())),
    ("Swarm: leader of three killed", |_| run(swarm::leader_killed())),
    ("Swarm: launcher killed", |_| run(swarm::launcher_killed())),
    ("Swarm: launcher and leader killed", |_| run(swarm::launcher_and_leader_killed())),
    ("Kubernetes: first job", |_| run(kubernetes::first_light())),
    ("Kubernetes: sidecar killed", |plan| run(kubernetes::sidecar_killed(plan))),
    ("Kubernetes: pod deleted", |_| run(kubernetes::pod_deleted())),
    ("Kubernetes: kubelet stopped", |_| run(kubernetes::kubelet_stopped())),
    ("Kubernetes: quota used up", |_| run(kubernetes::quota_used_up())),
    ("Kubernetes: no node suits", |_| run(kubernetes::no_node_suits())),
    ("Kubernetes: pods refused", |_| run(kubernetes::refused())),
    ("Kubernetes: 500 jobs", |_| run(kubernetes::many_jobs())),
];
const LONG: [(&str, Scenario); 3] = [
    ("dockerd stopped", |plan| run(docker::stops(plan))),
    ("Swarm: launcher, leader and sidecar killed", |_| {
        run(swarm::launcher_and_leader_killed_without_sidecar())
    }),
    ("Swarm: killed at random", |plan| run(swarm_kills::run(plan))),
];

fn run<T: Into<Outcome>>(scenario: impl Future<Output = T>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(scenario).into()
}

fn main() -> ExitCode {
    let plan = Plan::from_environment();
    // Options are for the test harness of other binaries.
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let mut scenarios = SHORT.to_vec();
    if plan.long {
        scenarios.extend(LONG);
    }
    scenarios.retain(|(name, _)| match &wanted {
        Some(wanted) => name.contains(wanted),
        // They take minutes, or need a cluster.
        None => !name.starts_with("Kubernetes") && (plan.long || !name.starts_with("Swarm")),
    });
    println!("{plan}");

    let rows = Mutex::new(Vec::new());
    let next = Mutex::new(scenarios.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..plan.at_once() {
            scope.spawn(|| {
                while let Some((name, scenario)) = take(&next) {
                    let outcome = catch_unwind(|| scenario(&plan)).unwrap_or(Outcome::Failed);
                    println!("{name}: {outcome}");
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((name, outcome));
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{}", table(&rows));
    match rows.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed)) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn take<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}
