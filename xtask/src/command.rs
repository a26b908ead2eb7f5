//! Runs tools to completion: cargo, pip, apt-get, rustup.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::progress::Step;
use crate::stop::{Interrupted, Stop};

/// Enough for apt-get to leave dpkg consistent, and for a nested `cargo xtask` to stop
/// all that it has started.
const GRACE: Duration = Duration::from_secs(90);

/// For output that is still in the pipe when a tool has ended.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(200);

const ERASE_LINE: &str = "\x1b[K";

/// Lines of a failed tool's output in the error.
const KEPT_LINES: usize = 200;

/// Runs a tool with a progress line. Its output is shown only if it fails.
pub(crate) async fn run(stop: &Stop, step: &mut Step, command: Command) -> Result<()> {
    let shown = describe(&command);
    let (status, output) = follow(stop, step, command, KEPT_LINES).await?;
    if !status.success() {
        bail!("`{shown}` failed ({status}):\n{}", output.join("\n"));
    }
    Ok(())
}

/// Runs Cargo with a progress line and `--message-format=json-render-diagnostics`. Returns its
/// messages; the rest of its output is shown if it fails.
pub(crate) async fn cargo_messages(
    stop: &Stop,
    step: &mut Step,
    command: Command,
) -> Result<Vec<String>> {
    let shown = describe(&command);
    let (status, output) = follow(stop, step, command, usize::MAX).await?;
    let (messages, rest): (Vec<_>, Vec<_>) = output.into_iter().partition(|it| is_message(it));
    if !status.success() {
        bail!("`{shown}` failed ({status}):\n{}", rest.join("\n"));
    }
    Ok(messages)
}

/// Runs a tool with a progress line, and shows its whole output at the end: that of tools that run
/// at the same time would be mixed up.
pub(crate) async fn run_and_show(stop: &Stop, step: &mut Step, command: Command) -> Result<()> {
    let shown = describe(&command);
    let (status, output) = follow(stop, step, command, usize::MAX).await?;
    step.say(&format!("$ {shown}\n{}", output.join("\n")));
    if !status.success() {
        bail!("`{shown}` failed ({status}); its output is above");
    }
    Ok(())
}

/// Waits for the end of a tool. Returns the last lines of its output.
async fn follow(
    stop: &Stop,
    step: &mut Step,
    mut command: Command,
    kept_lines: usize,
) -> Result<(ExitStatus, Vec<String>)> {
    let shown = describe(&command);
    let mut tool = Tool::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()), &shown)?;
    let (sender, mut lines) = mpsc::unbounded_channel();
    if let Some(stdout) = tool.child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = tool.child.stderr.take() {
        forward(stderr, sender);
    }
    let mut kept = VecDeque::new();
    let mut keep = |line: String| {
        if kept.len() == kept_lines {
            kept.pop_front();
        }
        kept.push_back(line);
    };
    let mut progress = String::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let status = loop {
        tokio::select! {
            Some(line) = lines.recv() => match progress_of(&line) {
                Some(state) => progress = state,
                None => {
                    if !is_message(&line) {
                        progress.clone_from(&line);
                    }
                    keep(line);
                }
            },
            _ = tick.tick() => step.detail(&progress),
            status = tool.child.wait() => break status,
            () = stop.requested() => {
                tool.interrupt().await?;
                return Err(Interrupted.into());
            }
        }
    };
    let status = tool.ended(status)?;
    // A grandchild may hold the pipe open, so it does not wait for long.
    while let Ok(Some(line)) = tokio::time::timeout(LAST_LINES_TIMEOUT, lines.recv()).await {
        if progress_of(&line).is_none() {
            keep(line);
        }
    }
    Ok((status, kept.into()))
}

/// Runs a tool and shows its output.
pub(crate) async fn show(stop: &Stop, mut command: Command) -> Result<()> {
    let shown = describe(&command);
    let mut tool = Tool::spawn(&mut command, &shown)?;
    let status = tokio::select! {
        status = tool.child.wait() => status,
        () = stop.requested() => {
            tool.interrupt().await?;
            return Err(Interrupted.into());
        }
    };
    let status = tool.ended(status)?;
    if !status.success() {
        bail!("`{shown}` failed ({status}); its output is above");
    }
    Ok(())
}

/// The output of a quick tool, unless it is missing or fails.
pub(crate) async fn output(mut command: Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(20), output).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A child in its own process group: Ctrl-C then reaches only this process, and the
/// children of a child end with it.
struct Tool {
    child: Child,
    group: Option<Pid>,
}

impl Tool {
    fn spawn(command: &mut Command, shown: &str) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run `{shown}`"))?;
        let group = group_of(&child);
        Ok(Self { child, group })
    }

    fn ended(&mut self, status: std::io::Result<ExitStatus>) -> Result<ExitStatus> {
        let status = status.context("cannot wait for a child")?;
        self.group = None;
        Ok(status)
    }

    async fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::INT);
        if let Ok(status) = tokio::time::timeout(GRACE, self.child.wait()).await {
            self.ended(status)?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// The state that a line of Cargo's progress bar shows, such as `107/320: tokio`.
fn progress_of(line: &str) -> Option<String> {
    let (_, state) = line.trim_start().strip_prefix("Building [")?.split_once(']')?;
    Some(state.trim().to_owned())
}

/// Whether it is a message of Cargo in JSON.
fn is_message(line: &str) -> bool {
    line.starts_with('{')
}

fn forward(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    lines: mpsc::UnboundedSender<String>,
) {
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        let mut open = true;
        while open {
            open = matches!(pipe.read_buf(&mut buffer).await, Ok(read) if read > 0);
            // A progress bar returns to the start of its line.
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            while let Some(end) = buffer.iter().position(is_end).or((!open).then_some(buffer.len()))
            {
                let line: Vec<u8> = buffer.drain(..buffer.len().min(end + 1)).collect();
                let text = String::from_utf8_lossy(&line).replace(ERASE_LINE, "");
                let text = text.trim_end();
                if !text.is_empty() && lines.send(text.to_owned()).is_err() {
                    return;
                }
                if buffer.is_empty() {
                    break;
                }
            }
        }
    });
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_cargos_progress_bar_is_told_from_other_lines() {
        let bar = "    Building [=====>          ] 107/320: tokio, tokio-util";
        assert_eq!(progress_of(bar).as_deref(), Some("107/320: tokio, tokio-util"));
        assert_eq!(progress_of("   Compiling tokio v1.54.1"), None);
    }
}
