//! All checks and tests; those that fail fastest come first.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use edgerunner_testkit::Programs;
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
use crate::stop::{Interrupted, Stop};
use crate::target;
use crate::tools;
use crate::wasm;

/// One profile for lints, tests and programs: another one would compile all dependencies
/// again.
pub(crate) const PROFILE: Profile = Profile::Dev;

pub(crate) async fn run(stop: &Stop) -> Result<()> {
    let mut report = Report { started: Instant::now(), rows: Vec::new() };
    let mut engine = None;
    let result = all(stop, &mut report, &mut engine).await;
    if let Some(engine) = engine {
        engine.stop().await;
    }
    report.print();
    result
}

async fn all(stop: &Stop, report: &mut Report, engine: &mut Option<Engine>) -> Result<()> {
    // Tools that may be missing come first, before minutes of compiling.
    report.step("format", tool(stop, &["fmt", "--all", "--check"])).await?;
    report.step("wasm target", target::add(stop, wasm::TARGET)).await?;
    let envoy = report.step("Envoy", envoy::get(stop)).await?;
    let engine = engine.insert(report.step("Docker Engine", docker::engine(stop)).await?);
    let registry = report.step("registry", tools::registry(stop)).await?;
    let compose = report.step("Docker Compose", tools::compose(stop)).await?;
    let promtool = report.step("promtool", tools::promtool(stop)).await?;
    let browser = report.step("browser", tools::browser(stop)).await?;
    let schemathesis = report.step("schemathesis", tools::schemathesis(stop)).await?;

    let lints = ["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"];
    report.step("lints, host", tool(stop, &lints)).await?;
    let package = ["clippy", "--package=edgerunner-filter", "--target", wasm::TARGET];
    let lints = [&package[..], &["--", "--deny=warnings"]].concat();
    report.step("lints, wasm", tool(stop, &lints)).await?;
    report.step("dependencies", tools::check_dependencies(stop)).await?;
    report.step("file formats", formats::check(stop)).await?;
    report.step("alert rules", tools::test_alert_rules(stop, &promtool)).await?;
    report.step("unit and property tests", tool(stop, &["test"])).await?;
    let module = report.step("filter", wasm::build(stop)).await?;
    report.step("sidecar and sandbox", build::sidecar_and_sandbox(stop, PROFILE)).await?;
    report.step("runner image", image::build(stop, engine, PROFILE)).await?;
    report.step("image of a runner's Engine", image::build_dind(stop, engine)).await?;
    let programs = build::built(envoy, module, PROFILE);
    let sidecar = report.step("static sidecar", packages::static_sidecar(stop, PROFILE)).await?;
    let images = packages::build_images(stop, engine, &programs, &sidecar);
    report.step("images of packaging/", images).await?;
    let mut tests = end_to_end_tests(&programs, &[]);
    tests
        .env("EDGERUNNER_DIND_IMAGE", image::DIND)
        .env("EDGERUNNER_REGISTRY", registry)
        .env("EDGERUNNER_PROMTOOL", promtool)
        .env("EDGERUNNER_COMPOSE", compose)
        .env("EDGERUNNER_CHROMIUM", browser.chromium)
        .env("EDGERUNNER_CHROMEDRIVER", browser.chromedriver)
        .env("EDGERUNNER_AXE", browser.axe)
        .env("EDGERUNNER_PYTHON", schemathesis.python)
        .env("EDGERUNNER_SCHEMATHESIS", schemathesis.directory);
    report.step("end-to-end tests", show(stop, tests)).await?;
    report.step("cargo xtask up --once", up(stop, &[])).await?;
    report.step("cargo xtask up --once --tls", up(stop, &["--tls"])).await
}

/// The end-to-end tests, with the paths of the programs.
pub(crate) fn end_to_end_tests(programs: &Programs, arguments: &[&str]) -> Command {
    let mut command = cargo(["test", "--package=edgerunner-tests"]);
    command.args(arguments);
    programs.pass_to(&mut command);
    command
}

/// The command that people try first.
async fn up(stop: &Stop, more: &[&str]) -> Result<()> {
    let arguments = ["xtask", "up", "--once", "--sandbox", "--dev", "--free-ports"];
    tool(stop, &[&arguments, more].concat()).await
}

async fn tool(stop: &Stop, arguments: &[&str]) -> Result<()> {
    show(stop, cargo(arguments)).await
}

async fn show(stop: &Stop, command: Command) -> Result<()> {
    eprintln!("\n$ {}", command::describe(&command));
    command::show(stop, command).await
}

struct Report {
    started: Instant,
    rows: Vec<(&'static str, &'static str, Duration)>,
}

impl Report {
    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let result = work.await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) if error.is::<Interrupted>() => "stopped",
            Err(_) => "FAILED",
        };
        self.rows.push((name, outcome, started.elapsed()));
        result
    }

    fn print(&self) {
        eprintln!();
        for (name, outcome, elapsed) in &self.rows {
            eprintln!("{name:<30} {outcome:<8} {:>12}", seconds(*elapsed));
        }
        eprintln!("{:<30} {:<8} {:>12}", "all", "", seconds(self.started.elapsed()));
    }
}
