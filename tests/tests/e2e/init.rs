//! `edgerunner init`, from nothing to a finished job.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox, Settings};
use edgerunner_testkit::envoy;
use edgerunner_testkit::envoy_config::Sidecars;
use edgerunner_tests::{
    Answer, Containers, Envoy, Programs, Sidecar, TOKEN, client, eventually, ports,
};
use http::{Request, Uri, header};
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const REPOSITORY: [&str; 2] = ["--repository", "acme/app"];

/// A directory to write to, and the sandbox in GitHub's place. It has no webhook.
struct World {
    programs: Programs,
    sandbox: Sandbox,
    directory: TempDir,
}

impl World {
    async fn new() -> Result<Self> {
        let settings = Settings { tokens: vec![TOKEN.to_owned()], ..Settings::default() };
        Ok(Self {
            programs: Programs::from_environment()?,
            sandbox: Sandbox::start(TcpListener::bind(("127.0.0.1", 0)).await?, settings)?,
            directory: TempDir::new()?,
        })
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("new")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.target().join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn spawn(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Child> {
        let mut command = self.programs.command(&self.programs.sidecar);
        command
            .arg("init")
            .arg("--directory")
            .arg(self.target())
            .args(arguments)
            .env("GITHUB_API_URL", self.sandbox.url())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().context("edgerunner does not start")
    }

    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
        let mut child = self.spawn(arguments, variables)?;
        drop(child.stdin.take());
        Ok(timeout(LIMIT, child.wait_with_output()).await.context("init still runs")??)
    }

    /// Runs it with arguments that have to fail, and returns what it says. Nothing may be written.
    async fn fails(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<String> {
        let output = self.run(arguments, variables).await?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success(), "{arguments:?}: {said}");
        ensure!(!self.target().exists(), "{arguments:?} has written something");
        ensure!(!said.contains(TOKEN), "{said}");
        Ok(said)
    }

    /// Runs a job with the configuration that was written. `variables`: further ones of the sidecar.
    /// Returns what `doctor` finds.
    async fn a_job_is_done(
        &self,
        edge: Option<SocketAddr>,
        variables: &[(&str, &str)],
    ) -> Result<Value> {
        let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let containers = Containers::watch(None, &instance)?;
        let (grpc, http) = (ports::free()?, ports::free()?);
        let own = self.directory.path().join("run");
        fs::create_dir(&own)?;
        let file = self.target().join("edgerunner.toml").display().to_string();
        let environment = [
            ("EDGERUNNER_CONFIG", &*file),
            ("SCHEDULER_INSTANCE", &instance),
            ("RUNNER_IDLE_TIMEOUT_SECONDS", "1"),
        ];
        let environment = environment.iter().chain(variables);
        let environment =
            environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sidecar = Sidecar::new(&self.programs, &own, (grpc, http), environment);
        let mut sidecar = sidecar.with_sandbox_runners();
        sidecar.start().await?;
        let envoy = match edge {
            None => None,
            Some(listener) => {
                let secret = self.read("webhook-secret")?.trim().to_owned();
                let settings = envoy::Settings {
                    listener,
                    configuration: Some(self.read("envoy.yaml")?),
                    environment: vec![("GITHUB_WEBHOOK_SECRET".to_owned(), secret)],
                    arguments: ["--concurrency", "1"].map(str::to_owned).into(),
                    ..envoy::Settings::new(&own, Sidecars::Plain(vec![grpc]))?
                };
                let envoy = Envoy::spawn(&self.programs, settings)?;
                envoy.ready_with_sidecars().await?;
                Some(envoy)
            }
        };
        let job = self.sandbox.queue_job(&JobRequest { seconds: 0.1, ..JobRequest::default() });
        eventually("the job is done", async || {
            let job = self.sandbox.job(job).context("no such job")?;
            ensure!(job.status == JobStatus::Completed, "it is {:?}", job.status);
            Ok(Some(()))
        })
        .await?;
        let doctor = sidecar.run(&["doctor", "--json"]).await?;
        let found: Value = serde_json::from_slice(&doctor.stdout)?;
        ensure!(doctor.status.success(), "{found:#}");
        // Without webhooks, the end of the job is known only later.
        if edge.is_some() {
            eventually("the runner is gone", async || {
                Ok(self.sandbox.runners().is_empty().then_some(()))
            })
            .await?;
        }
        sidecar.terminate().await?;
        if let Some(envoy) = envoy {
            envoy.stop().await?;
        }
        containers.remove_all().await?;
        Ok(found)
    }
}

/// A browser that confirms what GitHub asks.
struct Visitor {
    lines: Lines<BufReader<ChildStderr>>,
    /// Of the page on loopback.
    page: String,
    said: String,
}

impl Visitor {
    /// Waits until the page is served.
    async fn of(child: &mut Child) -> Result<Self> {
        let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let mut said = String::new();
        loop {
            let line = timeout(LIMIT, lines.next_line()).await.context("no address")??;
            let line = line.with_context(|| format!("it ended: {said}"))?;
            said.extend([&line, "\n"]);
            if let Some(page) = line.trim().strip_suffix('/')
                && page.starts_with("http://127.0.0.1:")
            {
                let page = page.to_owned();
                return Ok(Self { lines, page, said });
            }
        }
    }

    /// Sends the form to GitHub. Returns where GitHub sends the browser.
    async fn confirm(&self) -> Result<String> {
        let page = fetch(&self.page, "/", None).await?;
        let html = String::from_utf8(page.body.to_vec())?;
        let value = |name: &str| -> Result<String> {
            let (_, rest) = html.split_once(&format!("{name}=\"")).context(html.clone())?;
            let text = rest.split('"').next().unwrap_or_default();
            Ok(text.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&"))
        };
        let manifest: Value = serde_json::from_str(&value("value")?)?;
        ensure!(manifest["default_permissions"]["administration"] == "write", "{manifest}");
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("manifest", &manifest.to_string())
            .finish();
        let action = value("action")?;
        let answer = fetch(&action, "", Some(form)).await?;
        ensure!(answer.status == 302, "{action}: {answer:?}");
        Ok(answer.header("location").to_owned())
    }

    /// What the program said until its end.
    async fn rest(mut self) -> Result<String> {
        while let Some(line) = timeout(LIMIT, self.lines.next_line()).await.context("it runs")?? {
            self.said.extend([&line, "\n"]);
        }
        Ok(self.said)
    }
}

/// A GET, or a POST of a form.
async fn fetch(base: &str, path: &str, form: Option<String>) -> Result<Answer> {
    let uri: Uri = format!("{base}{path}").parse()?;
    let authority = uri.authority().context("no host")?.to_string();
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = match &form {
        Some(_) => {
            Request::post(target).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        }
        None => Request::get(target),
    };
    let request = request.header(header::HOST, &authority);
    let body = Full::new(bytes::Bytes::from(form.unwrap_or_default()));
    client::send(authority.parse()?, request.body(body)?).await
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test]
async fn an_app_that_is_registered_in_the_browser_runs_a_job() -> Result<()> {
    let world = World::new().await?;
    let edge = ports::free()?;
    let url = format!("http://{edge}");
    let arguments = [&REPOSITORY[..], &["--app", "--url", &url]].concat();
    let mut child = world.spawn(&arguments, &[])?;
    let visitor = Visitor::of(&mut child).await?;

    // Whoever sends the browser to the page without having seen the form changes nothing.
    let forged = fetch(&visitor.page, "/callback?code=abc&state=guessed", None).await?;
    ensure!(forged.status == 400, "{forged:?}");
    let elsewhere = Request::get("/").header(header::HOST, "rebound.example");
    let address: SocketAddr = visitor.page.trim_start_matches("http://").parse()?;
    let refused = client::send(address, elsewhere.body(Full::new(bytes::Bytes::new()))?).await?;
    ensure!(refused.status == 421, "{refused:?}");

    let location = visitor.confirm().await?;
    let last = fetch(&location, "", None).await?;
    ensure!(last.status == 303, "{last:?}");
    let install = format!("{}/apps/edgerunner-sandbox/installations/new", world.sandbox.url());
    ensure!(last.header("location") == install, "{last:?}");
    let (output, said) = tokio::join!(child.wait_with_output(), visitor.rest());
    let (output, said) = (output?, said?);
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}\n{printed}");
    ensure!(said.contains("its state differs"), "{said}");
    ensure!(printed.contains("The configuration is valid"), "{printed}");
    ensure!(printed.contains("run these 3 commands") && printed.contains(&install), "{printed}");

    let secret = world.read("webhook-secret")?;
    let key = world.read("app.private-key.pem")?;
    for text in [&said, &printed] {
        ensure!(!text.contains(secret.trim()) && !text.contains("PRIVATE KEY-"), "{text}");
    }
    ensure!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "not a key");
    for name in ["webhook-secret", "app.private-key.pem"] {
        ensure!(mode(&world.target().join(name))? == 0o600, "{name}");
    }
    let found = world.a_job_is_done(Some(edge), &[]).await?;
    let deliveries = found.as_array().context("a list")?;
    let deliveries = deliveries.iter().find(|it| it["check"] == "deliveries of app/hook");
    let message = deliveries.context("no deliveries")?["message"].to_string();
    ensure!(message.contains("the newest was answered with 202"), "{message}");

    // Nothing is overwritten, and everything that is in the way is named.
    fs::remove_file(world.target().join("edgerunner.toml"))?;
    let output = world.run(&arguments, &[]).await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "{said}");
    ensure!(said.contains("app.private-key.pem, webhook-secret, envoy.yaml"), "{said}");
    ensure!(!world.target().join("edgerunner.toml").exists(), "something was written");
    ensure!(world.read("webhook-secret")? == secret, "the secret was changed");
    world.sandbox.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn jobs_are_found_without_any_webhook() -> Result<()> {
    let world = World::new().await?;
    let token = [("GITHUB_TOKEN", TOKEN)];
    let arguments = [&REPOSITORY[..], &["--polling"]].concat();
    let output = world.run(&arguments, &token).await?;
    let printed = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success() && !printed.contains(TOKEN), "{printed}");
    ensure!(world.read("github-token")? == format!("{TOKEN}\n"), "another token");
    ensure!(!world.target().join("envoy.yaml").exists(), "{printed}");
    world.a_job_is_done(None, &[("MISSED_WEBHOOKS_INTERVAL_SECONDS", "1")]).await?;
    ensure!(world.sandbox.deliveries().is_empty(), "a webhook was sent");
    world.sandbox.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn bad_input_is_answered_with_one_sentence_and_nothing_is_written() -> Result<()> {
    let world = World::new().await?;
    let good = [("GITHUB_TOKEN", TOKEN)];
    let wrong = [("GITHUB_TOKEN", "no-token-of-anybody")];
    let polling = [&REPOSITORY[..], &["--polling"]].concat();
    for (arguments, variables, expected) in [
        (&[][..], &[][..], "these are missing: --repository OWNER/NAME"),
        (&["--repository", "app"], &good, "write OWNER/NAME"),
        (&[REPOSITORY[0], REPOSITORY[1], "--url", "http://h.example.com"], &good, "over HTTPS"),
        (&polling, &wrong, "token refused by GitHub (401"),
        (&["--organization", "acme", "--polling"], &good, "only repositories that are named"),
    ] {
        let said = world.fails(arguments, variables).await?;
        ensure!(said.contains(expected), "{arguments:?}: {said}");
    }
    let away = [("GITHUB_TOKEN", TOKEN), ("GITHUB_API_URL", "http://127.0.0.1:9")];
    let said = world.fails(&polling, &away).await?;
    ensure!(said.contains("no answer from GitHub"), "{said}");

    let taken = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = taken.local_addr()?.port().to_string();
    let app = [&REPOSITORY[..], &["--polling", "--app", "--port", &port]].concat();
    let said = world.fails(&app, &[]).await?;
    ensure!(said.contains("choose another --port"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_code_may_be_pasted_and_one_that_is_used_up_is_refused() -> Result<()> {
    let world = World::new().await?;
    let arguments = [&REPOSITORY[..], &["--polling", "--app"]].concat();
    // Pastes what the browser shows in the end; `change` is done to it.
    let paste = async |change: &dyn Fn(&str) -> String| -> Result<(bool, String)> {
        let mut child = world.spawn(&arguments, &[])?;
        let visitor = Visitor::of(&mut child).await?;
        let location = visitor.confirm().await?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(format!("{}\n", change(&location)).as_bytes()).await?;
        let (status, said) = tokio::join!(timeout(LIMIT, child.wait()), visitor.rest());
        Ok((status.context("it still runs")??.success(), said?))
    };
    let (succeeded, said) = paste(&|_| "0123456789abcdef".to_owned()).await?;
    ensure!(!succeeded && said.contains("GitHub does not know the code (404)"), "{said}");
    ensure!(!world.target().exists(), "something was written");
    let with_wrong_state = |location: &str| format!("{location}0\n{location}");
    let (succeeded, said) = paste(&with_wrong_state).await?;
    ensure!(succeeded && said.contains("its state differs"), "{said}");
    ensure!(world.read("edgerunner.toml")?.contains("app_private_key_file"), "no key");
    ensure!(world.sandbox.calls().iter().any(|call| call.path.ends_with("/conversions")));
    world.sandbox.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn ctrl_c_during_the_registration_leaves_nothing() -> Result<()> {
    let world = World::new().await?;
    let arguments = [&REPOSITORY[..], &["--polling", "--app"]].concat();
    let mut child = world.spawn(&arguments, &[])?;
    let visitor = Visitor::of(&mut child).await?;
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?));
    rustix::process::kill_process(id.context("no process")?, Signal::INT)?;
    let status = timeout(LIMIT, child.wait()).await.context("it still runs")??;
    ensure!(!status.success() && !world.target().exists(), "{status}: {}", visitor.said);
    Ok(())
}
