//! Measures how many deliveries a second are on disk, with SQLite and with Postgres:
//! `cargo xtask bench --only store`.

use std::process::ExitCode;

use edgerunner_testkit::Postgres;

/// How often to repeat each measurement.
const ROUNDS: &str = "EDGERUNNER_BENCH_ROUNDS";

fn main() -> ExitCode {
    let rounds = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Postgres::start().expect("a Postgres server");
    let database = server.database().expect("a database");
    let store = directory.path().join("edgerunner.db");
    match edgerunner::bench::accept(&store, &server.url(&database), rounds) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("Postgres accepts fewer than it should");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
