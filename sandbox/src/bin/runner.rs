//! The stand-in runner, the only program of the sandbox's runner image.

use std::process::ExitCode;

use edgerunner_sandbox::runner::{self, Config, EndReason};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const RETURN_DEPRECATED: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
const VERSION_TOO_OLD: u8 = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("An error occurred: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // As the real runner. It shows that the image is there and starts.
        ["--version"] => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return Ok(ExitCode::SUCCESS);
        }
        ["show", folder, ..] => {
            runner::serve_message(folder.as_ref())?;
            return Ok(ExitCode::SUCCESS);
        }
        ["take-memory"] => runner::take_memory(),
        _ => {}
    }
    let config = Config::from_env(|name| std::env::var(name).ok())?;
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let run = runner::run(config, stop.clone());
    tokio::pin!(run);
    let ended = tokio::select! {
        ended = &mut run => ended,
        _ = terminated.recv() => {
            stop.cancel();
            run.await
        }
        _ = interrupted.recv() => {
            stop.cancel();
            run.await
        }
    };
    // As the real runner: unless it is asked for the code, it exits as if it had succeeded.
    let is_asked = std::env::var_os(RETURN_DEPRECATED).is_some();
    Ok(match ended? {
        EndReason::VersionTooOld if is_asked => ExitCode::from(VERSION_TOO_OLD),
        _ => ExitCode::SUCCESS,
    })
}
