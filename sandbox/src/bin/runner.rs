//! The stand-in runner, the only program of the sandbox's runner image.

use std::process::ExitCode;

use edgerunner_sandbox::runner::{self, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("An error occurred: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // As the real runner. It shows that the image is there and starts.
        ["--version"] => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        ["show", folder, ..] => return Ok(runner::serve_message(folder.as_ref())?),
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
    ended?;
    Ok(())
}
