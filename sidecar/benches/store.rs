//! Measures a store after a busy month: `cargo bench -p edgerunner --features bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let directory = tempfile::tempdir().expect("a temporary directory");
    match edgerunner::bench::store(&directory.path().join("edgerunner.db")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("this takes longer than it may");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
