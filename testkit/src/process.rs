//! A program that runs until it is stopped: sandbox, sidecar, Envoy, dockerd.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::eventually::eventually_within;
use crate::{client, workspace};

const READY_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(20);

/// Log lines shown when a program ends unexpectedly.
const LOG_TAIL: usize = 25;
const LOG_COLUMNS: usize = 400;

/// The unit of processor time in `/proc`, on x86-64 and arm64.
const MILLIS_PER_TICK: u64 = 10;

/// Killed when it is dropped; with its children if it leads a process group.
pub struct Process {
    name: &'static str,
    log: PathBuf,
    id: Pid,
    leads_group: bool,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Appends its output to `log`.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        // For appending: Envoy opens its standard output a second time for the access
        // log, and neither may overwrite the other.
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut child =
            command.as_std_mut().spawn().with_context(|| format!("cannot start {name}"))?;
        let id = Pid::from_child(&child);
        let leads_group = getpgid(Some(id)).is_ok_and(|group| group == id);
        let (ended, exit) = watch::channel(None);
        // Not a task: the program may outlive the runtime of the test that started it.
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                ended.send_replace(Some(status));
            }
        });
        Ok(Self { name, log: log.to_owned(), id, leads_group, exit })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until it answers with 2xx. Fails early if it ends.
    pub async fn answers(&self, address: SocketAddr, path: &str) -> Result<()> {
        let what = format!("{} answers at {address}{path}", self.name);
        let answers = eventually_within(READY_LIMIT, &what, async || {
            let status = client::get(address, path).await?.status;
            ensure!((200..300).contains(&status), "status {status}");
            Ok(Some(()))
        });
        tokio::select! {
            result = answers => {
                result.with_context(|| format!("its log is {}", workspace::shown(&self.log)))
            }
            error = self.died() => Err(error),
        }
    }

    /// Waits until it ends by itself, and returns its exit status and the end of its log.
    pub async fn died(&self) -> anyhow::Error {
        let how = match self.ended().await {
            Some(status) => status.to_string(),
            None => "exit status unknown".to_owned(),
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

    /// Sends a signal to it, or to the group that it leads. Fails if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(self.exit.borrow().is_none(), "{} has already ended", self.name);
        match self.leads_group {
            true => kill_process_group(self.id, signal)?,
            false => kill_process(self.id, signal)?,
        }
        Ok(())
    }

    /// Sends a signal and waits for the end. Fails if it has ended before.
    pub async fn end(&self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let status = timeout(END_LIMIT, self.ended()).await;
        let status = status.with_context(|| {
            format!("{} is still running {END_LIMIT:?} after {signal:?}", self.name)
        })?;
        status.context("exit status unknown")
    }

    /// Sends SIGTERM, and SIGKILL once `grace` is over. It may have ended before.
    pub async fn stop(&self, grace: Duration) {
        if self.signal(Signal::TERM).is_ok() && timeout(grace, self.ended()).await.is_err() {
            let _ = self.signal(Signal::KILL);
            self.ended().await;
        }
    }

    async fn ended(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// The number of its only child, for one that [`crate::hosts::Host::command`] started.
    pub(crate) fn child_id(&self) -> Result<u32> {
        let id = self.id.as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        children.trim().parse().with_context(|| format!("{} has no child", self.name))
    }

    /// Resident memory.
    pub fn memory_kib(&self) -> Result<u64> {
        let id = self.id.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix("kB"));
        kib.context("no VmRSS")?.trim().parse().context("VmRSS is not a number")
    }

    /// Processor time used so far by the group that it leads.
    pub fn cpu(&self) -> Result<Duration> {
        let group = self.id.as_raw_nonzero().get();
        let mut cpu = Duration::ZERO;
        for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
            // A process that has just ended counts towards its parent.
            let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
            if let Some(usage) = Usage::parse(&stat).filter(|usage| usage.group == group) {
                cpu += usage.cpu;
            }
        }
        Ok(cpu)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
    }
}

/// Processor time used so far by the calling process.
pub fn own_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    Ok(Usage::parse(&stat).context("unexpected format of /proc/self/stat")?.cpu)
}

/// From a line of `/proc/PID/stat`.
struct Usage {
    group: i32,
    /// Includes children that have ended.
    cpu: Duration,
}

impl Usage {
    fn parse(stat: &str) -> Option<Self> {
        // The program's name may contain anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let group = fields.nth(2)?.parse().ok()?;
        let mut ticks = 0;
        for field in fields.skip(8).take(4) {
            ticks += field.parse::<u64>().ok()?;
        }
        Some(Self { group, cpu: Duration::from_millis(ticks * MILLIS_PER_TICK) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_includes_children_that_ended() {
        let stat = "7 (a) b (c) S 1 42 42 0 -1 4194560 9 9 9 9 10 20 30 40 20 0 1 0 99 9 9";
        let usage = Usage::parse(stat).unwrap();
        assert_eq!(usage.group, 42);
        assert_eq!(usage.cpu, Duration::from_secs(1));
    }
}
