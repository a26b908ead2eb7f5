//! A shell that commands are typed into.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use edgerunner_testkit::programs::command;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const DONE: &str = "-- typed --";

/// A shell of a reader who types the documents' commands.
pub(crate) struct Terminal {
    shell: Child,
    stdin: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    /// The shell ends at the first command that fails.
    pub(crate) fn open(
        directory: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut shell = command(Path::new("bash"))
            .args(["-e", "-u"])
            .current_dir(directory)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start bash")?;
        let stdin = shell.stdin.take().context("no standard input")?;
        let output = shell.stdout.take().context("no standard output")?;
        Ok(Self { shell, stdin, output: BufReader::new(output).lines() })
    }

    /// Waits until all commands are done, and returns their output.
    pub(crate) async fn type_in(&mut self, commands: &str) -> Result<String> {
        self.stdin.write_all(format!("{commands}\necho; echo '{DONE}'\n").as_bytes()).await?;
        let printed = async {
            let mut printed = String::new();
            loop {
                match self.output.next_line().await? {
                    Some(line) if line == DONE => return Ok(printed),
                    Some(line) => printed.extend([&line, "\n"]),
                    None => {
                        let status = self.shell.wait().await?;
                        bail!("{commands}\nended with {status}, after\n{printed}")
                    }
                }
            }
        };
        let printed = timeout(LIMIT, printed).await;
        printed.with_context(|| format!("{commands}\nis still running after {LIMIT:?}"))?
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        drop(self.stdin);
        let status = timeout(LIMIT, self.shell.wait()).await.context("bash is still running")??;
        ensure!(status.success(), "bash ended with {status}");
        Ok(())
    }
}
