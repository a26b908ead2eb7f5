//! All checks and tests, or one part of them.

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use edgerunner_testkit::Programs;
use serde_json::Value;
use tokio::process::Command;

use crate::build;
use crate::cargo::{Profile, cargo};
use crate::command;
use crate::docker::{self, Engine};
use crate::envoy;
use crate::formats;
use crate::image;
use crate::packages;
use crate::progress::seconds;
use crate::python::Packages;
use crate::stop::{Interrupted, Stop};
use crate::target;
use crate::tools::{self, Browser};
use crate::wasm;

/// One profile for lints, tests and programs: another one would compile all libraries again.
pub(crate) const PROFILE: Profile = Profile::Dev;

const END_TO_END: &str = "edgerunner-tests";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this part
    part: Option<Part>,
    /// Run only tests whose name contains this text
    #[arg(requires = "part")]
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Unit and property tests, without Envoy and Docker
    Unit,
    /// End-to-end tests, with Envoy and Docker
    E2e,
    /// Killed processes, lost connections, a full disk
    Faults,
    /// Requests that GitHub never sends
    Hostile,
    /// The status page in Chromium
    Page,
    /// `cargo xtask up --once`, without and with TLS
    Up,
}

impl Part {
    /// The test target of an end-to-end suite.
    fn suite(self) -> Option<&'static str> {
        match self {
            Self::E2e => Some("e2e"),
            Self::Faults => Some("faults"),
            Self::Hostile => Some("hostile"),
            Self::Page => Some("page"),
            Self::Unit | Self::Up => None,
        }
    }
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    let report = Report::new();
    let mut engine = None;
    let parts = match &args.part {
        Some(part) => std::slice::from_ref(part),
        None => Part::value_variants(),
    };
    let run = Run { stop, report: &report, parts, name: args.name.as_deref() };
    let result = run.all(&mut engine, args.part.is_none()).await;
    if let Some(engine) = engine {
        engine.stop().await;
    }
    report.print();
    result?;
    report.verdict()
}

struct Run<'a> {
    stop: &'a Stop,
    report: &'a Report,
    parts: &'a [Part],
    /// Of the tests to run.
    name: Option<&'a str>,
}

/// What end-to-end tests need besides the programs.
struct Tools {
    registry: PathBuf,
    compose: String,
    promtool: PathBuf,
    browser: Browser,
    schemathesis: Packages,
}

impl Run<'_> {
    async fn all(&self, engine: &mut Option<Engine>, everything: bool) -> Result<()> {
        let Self { stop, report, .. } = self;
        if everything {
            report.step("format", self.tool(&["fmt", "--all", "--check"])).await?;
        }
        let suites: Vec<&str> = self.parts.iter().filter_map(|part| part.suite()).collect();
        let ends = !suites.is_empty();
        // Downloads and installations go on while the compiler works.
        let (tools, built) = tokio::join!(
            async {
                if !ends {
                    return Ok(None);
                }
                report.step("wasm target", target::add(stop, wasm::TARGET)).await?;
                let envoy = report.step("Envoy", envoy::get(stop)).await?;
                *engine = report.step("Docker Engine", docker::engine(stop)).await?;
                let tools = report.step("tools", self.tools()).await?;
                anyhow::Ok(envoy.zip(tools))
            },
            report.step("programs and tests, lints", self.build()),
        );
        let (tools, built) = (tools?, built?);
        if built.is_none() {
            return Ok(());
        }
        let unit = async {
            if self.parts.contains(&Part::Unit) {
                report.step("unit and property tests", self.unit_tests()).await?;
            }
            anyhow::Ok(())
        };
        let others = async {
            if !ends {
                return Ok((None, None));
            }
            let module = report.step("filter", wasm::build(stop)).await?;
            let sidecar = packages::static_sidecar(stop, PROFILE);
            let sidecar = report.step("static sidecar", sidecar).await?;
            if everything {
                let package = ["clippy", "--package=edgerunner-filter", "--target", wasm::TARGET];
                let lints = [&package[..], &["--", "--deny=warnings"]].concat();
                report.step("lints, wasm", self.tool(&lints)).await?;
                report.step("dependencies", tools::check_dependencies(stop)).await?;
                report.step("file formats", formats::check(stop)).await?;
            }
            anyhow::Ok((module, sidecar))
        };
        let (unit, others) = tokio::join!(unit, others);
        unit?;
        let (module, sidecar) = others?;
        if let (Some((envoy, tools)), Some(module), Some(sidecar), Some(engine)) =
            (tools, module, sidecar, engine.as_ref())
        {
            if everything {
                let rules = tools::test_alert_rules(stop, &tools.promtool);
                report.step("alert rules", rules).await?;
            }
            let programs = build::built(envoy, module, PROFILE);
            let runner = report.step("runner image", image::build(stop, engine, PROFILE)).await?;
            let dind = image::build_dind(stop, engine);
            let dind = report.step("image of a runner's Engine", dind).await?;
            let images = packages::build_images(stop, engine, &programs, &sidecar);
            let images = report.step("images of packaging/", images).await?;
            if runner.and(dind).and(images).is_some() {
                let tests = self.end_to_end_tests(&suites, &programs, &tools);
                report.step("end-to-end tests", show(stop, tests)).await?;
            }
        }
        if self.parts.contains(&Part::Up) {
            report.step("cargo xtask up --once", self.up(&[])).await?;
            report.step("cargo xtask up --once --tls", self.up(&["--tls"])).await?;
        }
        Ok(())
    }

    async fn tools(&self) -> Result<Tools> {
        Ok(Tools {
            registry: tools::registry(self.stop).await?,
            compose: tools::compose(self.stop).await?,
            promtool: tools::promtool(self.stop).await?,
            browser: tools::browser(self.stop).await?,
            schemathesis: tools::schemathesis(self.stop).await?,
        })
    }

    /// Compiles all programs and all tests, and benchmarks for their lints.
    async fn build(&self) -> Result<()> {
        self.tool(&["test", "--workspace", "--all-targets", "--no-run"]).await
    }

    async fn unit_tests(&self) -> Result<()> {
        let mut command = linted(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
        for target in integration_tests().await? {
            command.args(["--test", &target]);
        }
        show(self.stop, self.named(command)).await
    }

    fn end_to_end_tests(&self, suites: &[&str], programs: &Programs, tools: &Tools) -> Command {
        let mut tests = end_to_end_tests(programs, suites);
        tests
            .env("EDGERUNNER_DIND_IMAGE", image::DIND)
            .env("EDGERUNNER_REGISTRY", &tools.registry)
            .env("EDGERUNNER_PROMTOOL", &tools.promtool)
            .env("EDGERUNNER_COMPOSE", &tools.compose)
            .env("EDGERUNNER_CHROMIUM", &tools.browser.chromium)
            .env("EDGERUNNER_CHROMEDRIVER", &tools.browser.chromedriver)
            .env("EDGERUNNER_AXE", &tools.browser.axe)
            .env("EDGERUNNER_PYTHON", tools.schemathesis.python)
            .env("EDGERUNNER_SCHEMATHESIS", &tools.schemathesis.directory);
        self.named(tests)
    }

    /// Runs only the tests that were asked for.
    fn named(&self, mut command: Command) -> Command {
        if let Some(name) = self.name {
            command.args(["--", name]);
        }
        command
    }

    /// The command that people try first.
    async fn up(&self, more: &[&str]) -> Result<()> {
        let arguments = ["xtask", "up", "--once", "--sandbox", "--free-ports"];
        self.tool(&[&arguments, more].concat()).await
    }

    async fn tool(&self, arguments: &[&str]) -> Result<()> {
        show(self.stop, linted(arguments)).await
    }
}

/// The end-to-end tests of these suites, with the paths of the programs.
pub(crate) fn end_to_end_tests(programs: &Programs, suites: &[&str]) -> Command {
    let mut command = linted(&["test", "--workspace", "--no-fail-fast"]);
    for suite in suites {
        command.args(["--test", suite]);
    }
    programs.pass_to(&mut command);
    command
}

/// Cargo with Clippy as the compiler of this workspace's packages: it compiles and lints them in
/// one go. `cargo clippy` would only check, and compile every library a second time for that.
fn linted(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command
        .env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver")
        // As `cargo clippy -- --deny=warnings` passes it.
        .env("CLIPPY_ARGS", "--deny=warnings__CLIPPY_HACKERY__");
    command
}

/// The names of all test targets but the end-to-end suites.
async fn integration_tests() -> Result<Vec<String>> {
    let metadata = command::output(cargo(["metadata", "--no-deps", "--format-version=1"])).await;
    let metadata: Value = serde_json::from_str(&metadata.context("cargo metadata failed")?)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let targets = packages
        .iter()
        .filter(|package| package["name"] != END_TO_END)
        .filter_map(|package| package["targets"].as_array())
        .flatten()
        .filter(|target| target["kind"][0] == "test");
    Ok(targets.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

async fn show(stop: &Stop, command: Command) -> Result<()> {
    eprintln!("\n$ {}", command::describe(&command));
    command::show(stop, command).await
}

/// What was done, how it ended, and how long it took. A step that fails does not end the run, so
/// that one run tells everything.
struct Report {
    started: Instant,
    rows: RefCell<Vec<Row>>,
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    elapsed: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Stopped,
    Failed,
}

impl Report {
    fn new() -> Self {
        Self { started: Instant::now(), rows: RefCell::new(Vec::new()) }
    }

    /// `None` if the step failed, which is printed. An error means that the run was stopped.
    async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let started = Instant::now();
        let result = work.await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(error) if error.is::<Interrupted>() => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        self.rows.borrow_mut().push(Row { name, outcome, elapsed: started.elapsed() });
        match (outcome, result) {
            (Outcome::Failed, Err(error)) => {
                eprintln!("\nerror: {name}: {error:#}");
                Ok(None)
            }
            (_, result) => result.map(Some),
        }
    }

    fn print(&self) {
        eprintln!();
        for Row { name, outcome, elapsed } in self.rows.borrow().iter() {
            let outcome = match outcome {
                Outcome::Ok => "ok",
                Outcome::Stopped => "stopped",
                Outcome::Failed => "FAILED",
            };
            eprintln!("{name:<30} {outcome:<8} {:>12}", seconds(*elapsed));
        }
        eprintln!("{:<30} {:<8} {:>12}", "all", "", seconds(self.started.elapsed()));
    }

    fn verdict(&self) -> Result<()> {
        let rows = self.rows.borrow();
        let failed: Vec<&str> =
            rows.iter().filter(|row| row.outcome == Outcome::Failed).map(|row| row.name).collect();
        if !failed.is_empty() {
            bail!("failed: {}; the reasons are above", failed.join(", "));
        }
        Ok(())
    }
}
