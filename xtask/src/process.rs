//! A program that runs until it is told to end: sandbox, sidecar, Envoy,
//! dockerd.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::watch;

use crate::command::group_of;
use crate::workspace;

/// Log lines shown when a program ends that should not have.
const LOG_TAIL: usize = 25;
const LOG_COLUMNS: usize = 400;

/// What Linux counts processor time in towards programs, on x86-64 and arm64.
const MILLIS_OF_TICK: u64 = 10;

pub(crate) struct Process {
    name: &'static str,
    log: PathBuf,
    group: Option<Pid>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Its output goes to `log`, which starts empty.
    pub(crate) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let file = empty_log(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot share a log file")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // A group of its own: Ctrl-C on the terminal must reach us alone,
            // so that things end in order and not all at once.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let group = group_of(&child);
        let (ended, exit) = watch::channel(None);
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                ended.send_replace(Some(status));
            }
        });
        Ok(Self { name, log: log.to_owned(), group, exit })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How much of its memory is resident.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let id = self.group.context("it has no id")?.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix("kB"));
        kib.context("no VmRSS")?.trim().parse().context("VmRSS is no number")
    }

    /// Processor time it has taken so far, with all that it has started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let group = self.group.context("it has no id")?.as_raw_nonzero().get();
        let mut cpu = Duration::ZERO;
        for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
            // Whatever ends meanwhile is in its parent's count once that has waited for it.
            let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
            if let Some(usage) = Usage::parse(&stat).filter(|usage| usage.group == group) {
                cpu += usage.cpu;
            }
        }
        Ok(cpu)
    }

    /// Waits until it has ended by itself, and says how.
    pub(crate) async fn died(&self) -> anyhow::Error {
        let how = match self.ended().await {
            Some(status) => status.to_string(),
            None => "nobody knows how".to_owned(),
        };
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<String> =
            log.lines().map(|line| line.chars().take(LOG_COLUMNS).collect()).collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        anyhow!(
            "{} ended ({how}); the end of {}:\n{}",
            self.name,
            workspace::shown(&self.log),
            tail.join("\n")
        )
    }

    /// Asks it to end, and after `grace` makes it end.
    pub(crate) async fn end(&self, grace: Duration) {
        if self.exit.borrow().is_some() {
            return;
        }
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }

    async fn ended(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended this very moment, which is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// Processor time that this very process has taken so far.
pub(crate) fn own_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    Ok(Usage::parse(&stat).context("/proc/self/stat is not as expected")?.cpu)
}

/// From a line of `/proc/PID/stat`.
struct Usage {
    group: i32,
    /// With that of children that have ended.
    cpu: Duration,
}

impl Usage {
    fn parse(stat: &str) -> Option<Self> {
        // The name before it may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let group = fields.nth(2)?.parse().ok()?;
        let mut ticks = 0;
        for field in fields.skip(8).take(4) {
            ticks += field.parse::<u64>().ok()?;
        }
        Some(Self { group, cpu: Duration::from_millis(ticks * MILLIS_OF_TICK) })
    }
}

/// Opened for appending: Envoy opens its standard output a second time for the
/// access log, and neither may write over the other.
fn empty_log(path: &Path) -> std::io::Result<File> {
    File::create(path)?;
    File::options().append(true).open(path)
}

/// For ways out on which nobody could wait, such as a panic.
impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.signal(Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_a_process_and_of_children_that_ended() {
        let stat = "7 (a) b (c) S 1 42 42 0 -1 4194560 9 9 9 9 10 20 30 40 20 0 1 0 99 9 9";
        let usage = Usage::parse(stat).unwrap();
        assert_eq!(usage.group, 42);
        assert_eq!(usage.cpu, Duration::from_secs(1));
    }
}
