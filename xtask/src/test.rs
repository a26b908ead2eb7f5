//! Everything that must hold, in the order in which it fails fastest.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use tokio::process::Command;

use crate::browser::{self, Browser};
use crate::build::{Profile, cargo};
use crate::command;
use crate::compose;
use crate::docker::{self, Engine};
use crate::envoy;
use crate::formats;
use crate::image;
use crate::packages;
use crate::programs::{self, Programs};
use crate::progress::{Step, seconds};
use crate::promtool;
use crate::python::Packages;
use crate::registry;
use crate::schemathesis;
use crate::stop::{Interrupted, Stop};
use crate::target;
use crate::wasm;
use crate::workspace;

/// One profile for lints, tests, and the programs under test: each further
/// one would compile every dependency again.
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
    // What can be missing is fetched first: better to hear of it now than
    // after minutes of compiling.
    report.step("rustfmt and clippy", components(stop)).await?;
    report.step("format", tool(stop, &["fmt", "--all", "--check"])).await?;
    report.step("wasm target", target::add(stop, wasm::TARGET)).await?;
    let envoy = report.step("Envoy", envoy::get(stop)).await?;
    let engine = engine.insert(report.step("Docker Engine", docker::engine(stop)).await?);
    let registry = report.step("registry", registry::get(stop)).await?;
    let compose = report.step("Docker Compose", compose::get(stop)).await?;
    let promtool = report.step("promtool", promtool::get(stop)).await?;
    let browser = report.step("browser", browser::get(stop)).await?;
    let schemathesis = report.step("schemathesis", schemathesis::get(stop)).await?;

    report
        .step(
            "lints, host",
            tool(stop, &["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"]),
        )
        .await?;
    report
        .step(
            "lints, wasm",
            tool(
                stop,
                &[
                    "clippy",
                    "--package=edgerunner-filter",
                    "--target",
                    wasm::TARGET,
                    "--",
                    "--deny=warnings",
                ],
            ),
        )
        .await?;
    report.step("formats of others", formats::check(stop)).await?;
    report.step("alert rules", promtool::test_rules(stop, &promtool)).await?;
    report.step("unit and property tests", tool(stop, &["test"])).await?;
    let module = report.step("filter", wasm::build(stop)).await?;
    report.step("sidecar and sandbox", programs::build(stop, PROFILE)).await?;
    report.step("runner image", image::build(stop, engine, PROFILE)).await?;
    report.step("image of an own Engine", image::build_dind(stop, engine)).await?;
    let programs = Programs::built(envoy, module, PROFILE);
    let sidecar = report.step("static sidecar", packages::static_sidecar(stop, PROFILE)).await?;
    let images = packages::build_images(stop, engine, &programs, &sidecar);
    report.step("images of packaging/", images).await?;
    report
        .step(
            "end-to-end tests",
            end_to_end(stop, &programs, &registry, &promtool, &compose, &browser, &schemathesis),
        )
        .await?;
    report.step("cargo xtask up --once", up(stop, &[])).await?;
    report.step("cargo xtask up --once --tls", up(stop, &["--tls"])).await
}

async fn end_to_end(
    stop: &Stop,
    programs: &Programs,
    registry: &Path,
    promtool: &Path,
    compose: &str,
    browser: &Browser,
    schemathesis: &Packages,
) -> Result<()> {
    let mut command = end_to_end_tests(programs, &[]);
    command
        .env("EDGERUNNER_DIND_IMAGE", image::DIND)
        .env("EDGERUNNER_REGISTRY", registry)
        .env("EDGERUNNER_PROMTOOL", promtool)
        .env("EDGERUNNER_COMPOSE", compose)
        .env("EDGERUNNER_CHROMIUM", &browser.chromium)
        .env("EDGERUNNER_CHROMEDRIVER", &browser.chromedriver)
        .env("EDGERUNNER_AXE", &browser.axe)
        .env("EDGERUNNER_PYTHON", schemathesis.python)
        .env("EDGERUNNER_SCHEMATHESIS", &schemathesis.directory);
    announce(&command);
    command::show(stop, command).await
}

/// The tests that need everything, told where it is.
pub(crate) fn end_to_end_tests(programs: &Programs, arguments: &[&str]) -> Command {
    let mut command = cargo(["test", "--package=edgerunner-tests"]);
    command
        .args(arguments)
        .env("EDGERUNNER_ENVOY", &programs.envoy)
        .env("EDGERUNNER_WASM", &programs.module)
        .env("EDGERUNNER_SIDECAR", &programs.sidecar)
        .env("EDGERUNNER_RUNNER_IMAGE", image::RUNNER);
    command
}

/// The command people meet first.
async fn up(stop: &Stop, more: &[&str]) -> Result<()> {
    let arguments = ["xtask", "up", "--once", "--sandbox", "--dev", "--free-ports"];
    tool(stop, &[&arguments, more].concat()).await
}

async fn tool(stop: &Stop, arguments: &[&str]) -> Result<()> {
    let command = cargo(arguments);
    announce(&command);
    command::show(stop, command).await
}

/// Toolchains installed with rustup's minimal profile have neither.
async fn components(stop: &Stop) -> Result<()> {
    for (component, argument) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if command::answer(cargo([argument, "--version"])).await.is_some() {
            continue;
        }
        let mut step = Step::start(format!("installing {component}"));
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", component]).current_dir(workspace::root());
        command::run(stop, &mut step, rustup).await?;
        step.done("with rustup");
    }
    Ok(())
}

fn announce(command: &Command) {
    eprintln!("\n$ {}", command::describe(command));
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
        let mut table = Table::new();
        table.load_preset(UTF8_BORDERS_ONLY).set_header(["step", "", "time"]);
        for (name, outcome, elapsed) in &self.rows {
            table.add_row([*name, *outcome, &seconds(*elapsed)]);
        }
        table.add_row(["all", "", &seconds(self.started.elapsed())]);
        eprintln!("\n{table}");
    }
}
