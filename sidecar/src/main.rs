//! The `edgerunner` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgerunner::cli::main()
}
