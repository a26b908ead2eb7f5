//! Commands that use the whole screen of a terminal.

use std::num::NonZeroU16;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_tests::{Options, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const CONTROL_C: &str = "\x03";

/// A command on a terminal.
struct Screen {
    process: Child,
    keyboard: ChildStdin,
    output: ChildStdout,
    terminal: vt100::Parser,
}

impl Screen {
    fn open(stack: &Stack, arguments: &[&str]) -> Result<Self> {
        let mut process = stack
            .sidecar
            .on_terminal(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start script, of util-linux")?;
        let keyboard = process.stdin.take().context("no standard input")?;
        let output = process.stdout.take().context("no standard output")?;
        let [rows, columns] = [24, 80].map(|size| NonZeroU16::new(size).expect("not zero"));
        Ok(Self { process, keyboard, output, terminal: vt100::Parser::new(rows, columns, 0) })
    }

    fn text(&self) -> String {
        self.terminal.screen().contents()
    }

    /// Waits until the screen shows it.
    async fn shows(&mut self, text: &str) -> Result<()> {
        self.until(text, |shown| shown.contains(text)).await
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<()> {
        let read = async {
            let mut bytes = [0; 4096];
            while !is_so(&self.terminal.screen().contents()) {
                let count = self.output.read(&mut bytes).await?;
                ensure!(count > 0, "it has ended");
                self.terminal.process(&bytes[..count]);
            }
            Ok(())
        };
        let read = timeout(LIMIT, read).await.unwrap_or_else(|_| Err(anyhow::anyhow!("in time")));
        read.with_context(|| format!("not {what}, but\n{}", self.text()))
    }

    async fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).await?;
        Ok(self.keyboard.flush().await?)
    }

    /// It ends with success, and leaves the terminal as it was.
    async fn ends(mut self) -> Result<()> {
        let rest = async {
            let mut rest = Vec::new();
            self.output.read_to_end(&mut rest).await?;
            self.terminal.process(&rest);
            Ok::<_, anyhow::Error>(self.process.wait().await?)
        };
        let status = timeout(LIMIT, rest).await.context("it goes on")??;
        ensure!(status.success(), "{status}: {}", self.terminal.screen().contents());
        let screen = self.terminal.screen();
        ensure!(!screen.alternate_screen(), "the screen is not restored");
        ensure!(!screen.hide_cursor(), "the cursor is hidden");
        Ok(())
    }
}

#[tokio::test]
async fn top_shows_what_waits_and_goes_on_after_the_sidecar_was_away() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let job = stack.queue_for("nobody-has-this");
        stack.waits_for(job, "no_pool_has_labels").await?;
        let mut screen = Screen::open(stack, &["top"])?;
        for text in ["Needs attention: 1", "Blocked", "Pools: 1", "Waiting jobs: 1", "acme/app"] {
            screen.shows(text).await?;
        }
        screen.press("?").await?;
        screen.shows("open the job at GitHub").await?;
        screen.press("x/nothing-like-it\r").await?;
        screen.shows("Nothing passes the filter").await?;
        screen.press("\x1b").await?;
        screen.shows("acme/app").await?;

        stack.sidecar.kill().await?;
        screen.shows("no answer for").await?;
        screen.shows("edgerunner serve").await?;
        screen.shows("acme/app").await?;
        stack.sidecar.start().await?;
        screen.press("r").await?;
        screen.until("it goes on", |shown| !shown.contains("no answer for")).await?;
        screen.press("q").await?;
        screen.ends().await?;
        Ok(stack.sandbox.cancel_job(job)?)
    })
    .await;
}

#[tokio::test]
async fn watched_jobs_are_redrawn_in_place_until_control_c() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut screen = Screen::open(stack, &["jobs", "--watch"])?;
        screen.shows("No jobs found").await?;
        let job = stack.queue_for("nobody-has-this");
        screen.shows(&job.to_string()).await?;
        ensure!(screen.terminal.screen().alternate_screen(), "it scrolls");
        ensure!(screen.text().starts_with("NAME"), "{}", screen.text());
        stack.sidecar.kill().await?;
        screen.shows("edgerunner: no response from").await?;
        screen.shows(&job.to_string()).await?;
        stack.sidecar.start().await?;
        screen.until("it goes on", |shown| shown.starts_with("NAME")).await?;
        screen.press(CONTROL_C).await?;
        screen.ends().await?;
        Ok(stack.sandbox.cancel_job(job)?)
    })
    .await;
}

#[tokio::test]
async fn top_without_a_terminal_is_refused_with_what_to_use_instead() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let output = stack.sidecar.run(&["top"]).await?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{error}");
        ensure!(error.contains("needs a terminal") && error.contains("status --watch"), "{error}");
        Ok(())
    })
    .await;
}
