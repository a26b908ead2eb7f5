//! The status page in a real browser, over a real sidecar with real runners.
//!
//! It does not use Rust's test harness, since it prints figures and runs one browser at a
//! time. The first argument selects scenarios by a part of their names. Screenshots go to
//! `target/screenshots`.

mod breakdowns;
mod browser;
mod failing;
mod looks;
mod many_jobs;
mod measure;
mod nodes;
mod recorded;
mod sidecars;
mod sign_in;
mod states;
mod states_shown;
mod thousands;

use std::panic::catch_unwind;
use std::process::ExitCode;

const SCENARIOS: [(&str, fn()); 8] = [
    ("many jobs", || run(many_jobs::run())),
    ("thousands of jobs", || run(thousands::run())),
    ("everything failing", || run(failing::run())),
    ("nodes of a Swarm", || run(nodes::run())),
    ("several sidecars", || run(sidecars::run())),
    ("sign-in", || run(sign_in::run())),
    ("states and looks", || run(states_shown::run())),
    ("ten breakdowns", || run(breakdowns::run())),
];

fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(scenario);
}

fn main() -> ExitCode {
    // Options are for the test harness of other binaries.
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let mut code = ExitCode::SUCCESS;
    for (name, scenario) in SCENARIOS {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            continue;
        }
        match catch_unwind(scenario) {
            Ok(()) => println!("{name}: ok"),
            Err(_) => {
                println!("{name}: FAILED");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
