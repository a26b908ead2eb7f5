use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const END_LIMIT: Duration = Duration::from_secs(20);

/// A program that runs until it is told to end.
pub struct Process {
    child: Child,
}

impl Process {
    /// Its output is added to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        // Appending: Envoy opens its standard output a second time for the
        // access log, and neither may write over the other.
        let log = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        Ok(Self { child })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("it has ended already")?, signal)?;
        Ok(())
    }

    /// How much of its memory is resident.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let id = self.child.id().context("it has ended already")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix("kB"));
        kib.context("no VmRSS")?.trim().parse().context("VmRSS is no number")
    }

    /// Signals it and waits for its end.
    pub async fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let ended = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
        Ok(ended.with_context(|| format!("no end within {END_LIMIT:?} of {signal:?}"))??)
    }
}
