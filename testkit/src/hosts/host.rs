//! A host made of namespaces: its own network, mounts, host name and processes.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::Process;

/// It ends at once, with everything in it.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Its first process. `cat` ends with its standard input; the kernel then ends all other processes
/// and removes mounts and interfaces. `$0` is the host's name, `$1` a program that reaps processes
/// whose parent has ended.
const FIRST_PROCESS: &str = r#"
set -e
echo "$0" >/proc/sys/kernel/hostname
mount -t tmpfs tmpfs /run
ip link set lo up
echo ready
exec "$1" -- cat >/dev/null
"#;

/// Ends, with everything in it, when it is dropped and when this process ends.
pub(crate) struct Host {
    /// `unshare`, the parent of the first process.
    unshare: Child,
    stdin: Option<ChildStdin>,
}

impl Host {
    /// `init` is tini, which Docker calls `docker-init`.
    pub(crate) fn start(name: &str, init: &Path) -> Result<Self> {
        let mut unshare = std::process::Command::new("unshare")
            .args(["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", FIRST_PROCESS, name])
            .arg(init)
            // Ctrl-C reaches only the caller, who ends it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run `unshare`, which is in the package util-linux")?;
        let stdin = unshare.stdin.take();
        let stdout = unshare.stdout.take().context("no standard output")?;
        let host = Self { unshare, stdin };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "cannot create namespaces; the reason is printed above");
        Ok(host)
    }

    /// Namespaces of this process are those of the host, but for that of processes.
    pub(crate) fn id(&self) -> u32 {
        self.unshare.id()
    }

    /// A command that runs on this host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let id = self.id();
        let mut command = self.enter();
        command
            .args(["--uts", "--mount"])
            .arg(format!("--pid=/proc/{id}/ns/pid_for_children"))
            .arg("--")
            .arg(program);
        command
    }

    /// Starts a program that runs until it is stopped. It has no variable but `PATH`.
    pub(crate) fn process(
        &self,
        name: &'static str,
        arguments: &[String],
        path: &OsStr,
        log: &Path,
    ) -> Result<Process> {
        let mut command = self.command(name);
        command.args(arguments).env_clear().env("PATH", path).process_group(0);
        Process::start(name, command, log)
    }

    /// A command in this host's network alone: it can name processes outside.
    pub(crate) fn command_in_network(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter();
        command.arg("--").arg(program);
        command
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.id())).arg("--net");
        command
    }

    /// Ends it, without waiting for the end.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Host {
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
    fn drop(&mut self) {
        self.close();
        let deadline = Instant::now() + END_LIMIT;
        while matches!(self.unshare.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its child is killed with it.
                let _ = self.unshare.kill();
                let _ = self.unshare.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
