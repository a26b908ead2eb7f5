//! All checks and tests, or one part of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use edgerunner_testkit::{Programs, workspace};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::process::Command;

use crate::build;
use crate::cargo::{Profile, cargo, with_progress};
use crate::command;
use crate::debs;
use crate::docker::{self, Engine};
use crate::envoy;
use crate::formats;
use crate::image;
use crate::kubernetes;
use crate::packages;
use crate::progress::Step;
use crate::report::Report;
use crate::stop::Stop;
use crate::swarm;
use crate::tools;
use crate::wasm;

/// One profile for lints, tests and programs: another one would compile all libraries again.
pub(crate) const PROFILE: Profile = Profile::Dev;

/// The package of the end-to-end suites.
const END_TO_END: &str = "edgerunner-tests";

/// End-to-end tests at the same time. Most wait for a program or for GitHub's limits.
const END_TO_END_THREADS: &str = "5";

/// Unit tests of one program at the same time. Those of the sidecar wait for Postgres and for
/// limits of time.
const UNIT_THREADS: &str = "4";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this part, and install only what it needs
    part: Option<Part>,
    /// Run only tests whose name contains this text
    #[arg(requires = "part")]
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Format, Clippy, dependencies, file formats, alert rules
    Lints,
    /// Unit and property tests, without Envoy and Docker
    Unit,
    /// End-to-end tests, with Envoy and Docker
    E2e,
    /// Killed processes, lost connections, a full disk
    Faults,
    /// End-to-end tests again, with runners on a Docker Swarm of three Engines, and its faults; not
    /// part of the whole run
    Swarm,
    /// Runners as pods of a real cluster: that of KUBECONFIG, or one that is built once, in about
    /// ten minutes; not part of the whole run
    Kubernetes,
    /// The status page in Chromium
    Page,
    /// Requests that GitHub never sends
    Hostile,
    /// `cargo xtask up --once`, without and with TLS
    Up,
    /// The images with the static sidecar of a release; not part of the whole run
    Package,
}

impl Part {
    /// What runs if no part is named. [`Self::Package`] compiles every library a second time,
    /// [`Self::Swarm`] mostly waits until managers notice that a node is gone, and
    /// [`Self::Kubernetes`] needs a cluster.
    const ALL: [Self; 7] =
        [Self::Lints, Self::Unit, Self::E2e, Self::Faults, Self::Page, Self::Hostile, Self::Up];

    /// The order of what runs end to end. The sequences of a group run at the same time. Those
    /// beside `page` make hardly any networks: Chromium drops its requests when there is a new one.
    const ORDER: [&[&[Self]]; 5] = [
        &[&[Self::E2e]],
        &[&[Self::Package]],
        &[&[Self::Swarm]],
        &[&[Self::Kubernetes]],
        &[&[Self::Faults, Self::Hostile, Self::Up], &[Self::Page]],
    ];

    /// The test targets of end-to-end suites.
    fn suites(self) -> &'static [&'static str] {
        match self {
            Self::E2e | Self::Package => &["e2e"],
            Self::Swarm => &["e2e", "faults"],
            Self::Faults | Self::Kubernetes => &["faults"],
            Self::Page => &["page"],
            Self::Hostile => &["hostile"],
            Self::Lints | Self::Unit | Self::Up => &[],
        }
    }

    /// Whether its tests use the images of `packaging/`, a registry and all other tools.
    fn uses_images(self) -> bool {
        matches!(self, Self::E2e | Self::Package | Self::Swarm)
    }

    fn uses_podman(self) -> bool {
        matches!(self, Self::E2e | Self::Package | Self::Faults)
    }

    /// Whether its tests start a Postgres server.
    fn uses_postgres(self) -> bool {
        matches!(self, Self::Unit | Self::E2e | Self::Faults)
    }
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if args.name.is_some() && matches!(args.part, Some(Part::Lints | Part::Up)) {
        bail!("`lints` and `up` have no tests to choose from: leave out the name");
    }
    let report = Report::new();
    let mut engine = None;
    let parts = args.part.as_ref().map_or(&Part::ALL[..], std::slice::from_ref);
    let run = Run { stop, report: &report, parts, name: args.name.as_deref() };
    let result = run.all(&mut engine).await;
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
    /// A part of the names of the tests to run.
    name: Option<&'a str>,
}

/// What end-to-end tests need besides this workspace's programs.
struct Tools {
    envoy: PathBuf,
    /// Their paths, in the variables that the tests read.
    variables: Vec<(&'static str, PathBuf)>,
}

impl Tools {
    fn variable(&self, name: &str) -> Result<&Path> {
        let found = self.variables.iter().find(|(other, _)| *other == name);
        Ok(&found.with_context(|| format!("{name} is not set"))?.1)
    }
}

/// The end-to-end suites, and what they need.
struct Prepared {
    programs: Programs,
    tools: Tools,
    suites: Vec<Suite>,
}

/// An end-to-end suite that is compiled.
struct Suite {
    name: String,
    program: PathBuf,
}

impl Run<'_> {
    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    async fn all(&self, engine: &mut Option<Engine>) -> Result<()> {
        let Self { stop, report, .. } = self;
        if self.has(Part::Lints) {
            let format = show(stop, cargo(["fmt", "--all", "--check"]));
            report.step("format", format).await?;
        }
        let end_to_end = self.parts.iter().any(|part| !part.suites().is_empty());
        let prepared = match end_to_end {
            true => self.prepare(engine).await?,
            false => None,
        };
        // The first mostly wait, and leave the processors to the rest, which has lower priority.
        let end_to_end = Box::pin(self.end_to_end(prepared, engine));
        let (end_to_end, rest) = tokio::join!(end_to_end, self.rest());
        end_to_end?;
        rest
    }

    async fn end_to_end(&self, prepared: Option<Prepared>, engine: &Option<Engine>) -> Result<()> {
        if let (Some(prepared), Some(engine)) = (prepared, engine) {
            let images = self.report.step("images", self.images(engine, &prepared)).await?;
            if images.is_some() {
                return self.suites(&prepared).await;
            }
        }
        self.up().await
    }

    /// Compiles what the end-to-end suites need; downloads and installs the rest meanwhile. `None`
    /// if something failed.
    async fn prepare(&self, engine: &mut Option<Engine>) -> Result<Option<Prepared>> {
        let Self { stop, report, .. } = self;
        let (module, suites, tools) = tokio::join!(
            report.step("filter", wasm::build(stop)),
            report.step("programs, end-to-end tests", self.build_suites()),
            async {
                let found = report.step("Docker Engine", docker::engine(stop)).await?;
                *engine = found;
                report.step("tools", self.tools()).await
            },
        );
        let (Some(module), Some(suites), Some(tools)) = (module?, suites?, tools?) else {
            return Ok(None);
        };
        let programs = build::built(tools.envoy.clone(), module, PROFILE);
        Ok(Some(Prepared { programs, tools, suites }))
    }

    async fn tools(&self) -> Result<Tools> {
        let stop = self.stop;
        let envoy = envoy::get(stop).await?;
        let mut variables = Vec::new();
        if self.parts.iter().any(|part| part.uses_postgres()) {
            tools::postgres(stop).await?;
        }
        if self.parts.iter().any(|part| part.uses_images()) {
            let schemathesis = tools::schemathesis(stop).await?;
            variables.extend([
                ("EDGERUNNER_REGISTRY", tools::registry(stop).await?),
                ("EDGERUNNER_COMPOSE", tools::compose(stop).await?.into()),
                ("EDGERUNNER_PROMTOOL", tools::promtool(stop).await?),
                ("EDGERUNNER_PYTHON", schemathesis.python.into()),
                ("EDGERUNNER_SCHEMATHESIS", schemathesis.directory),
                ("EDGERUNNER_DIND_IMAGE", image::DIND.into()),
                ("EDGERUNNER_EGRESS_IMAGE", image::EGRESS.into()),
                ("EDGERUNNER_HOSTILE_IMAGE", image::HOSTILE.into()),
            ]);
        }
        if self.parts.iter().any(|part| part.uses_podman()) {
            variables.push(("EDGERUNNER_PODMAN", tools::podman(stop).await?));
        }
        if self.uses_swarm() {
            variables.push((swarm::PROGRAMS, debs::engine(stop).await?));
        }
        if self.has(Part::Kubernetes) {
            let programs = kubernetes::programs(stop).await?;
            variables.extend(programs.map(|it| (kubernetes::PROGRAMS, it)));
        }
        if self.has(Part::Page) {
            let browser = tools::browser(stop).await?;
            variables.extend([
                ("EDGERUNNER_CHROMIUM", browser.chromium),
                ("EDGERUNNER_CHROMEDRIVER", browser.chromedriver),
                ("EDGERUNNER_AXE", browser.axe),
            ]);
            let canaille = tools::canaille(stop).await?;
            variables.extend([
                ("EDGERUNNER_PYTHON", canaille.python.into()),
                ("EDGERUNNER_CANAILLE", canaille.directory),
            ]);
        }
        Ok(Tools { envoy, variables })
    }

    async fn images(&self, engine: &Engine, prepared: &Prepared) -> Result<()> {
        let stop = self.stop;
        let Prepared { programs, tools, .. } = prepared;
        image::build(stop, engine, PROFILE).await?;
        if self.parts.iter().any(|part| part.uses_images()) {
            image::build_dind(stop, engine).await?;
            image::build_egress(stop, engine, &programs.envoy).await?;
            if self.parts.iter().any(|part| part.uses_postgres()) {
                image::build_postgres(stop, engine).await?;
            }
        } else if self.has(Part::Kubernetes) {
            return kubernetes::image(stop, engine, tools.variable(kubernetes::PROGRAMS).ok())
                .await;
        } else if !self.uses_swarm() {
            return Ok(());
        }
        if self.has(Part::Package) {
            let sidecar = packages::static_sidecar(stop, PROFILE).await?;
            return packages::build_images(stop, engine, programs, &sidecar).await;
        }
        packages::build_images_with_libraries(stop, engine, programs).await
    }

    /// Compiles and lints all programs and the suites that are asked for.
    async fn build_suites(&self) -> Result<Vec<Suite>> {
        let mut step = Step::start("building programs and end-to-end tests");
        let mut arguments =
            vec!["build", "--message-format=json-render-diagnostics", "--workspace", "--bins"];
        for part in self.parts {
            arguments.extend(part.suites().iter().flat_map(|suite| ["--test", suite]));
        }
        let build = with_progress(linted(&arguments)?);
        let messages = command::cargo_messages(self.stop, &mut step, build).await?;
        step.done("");
        let messages = messages.iter().filter_map(|it| serde_json::from_str::<Value>(it).ok());
        Ok(messages
            .filter(|it| it["target"]["kind"][0] == "test" && it["executable"].is_string())
            .filter_map(|it| {
                let name = it["target"]["name"].as_str()?.to_owned();
                Some(Suite { name, program: it["executable"].as_str()?.into() })
            })
            .collect())
    }

    /// Runs the end-to-end suites that are asked for, one group after the other.
    async fn suites(&self, prepared: &Prepared) -> Result<()> {
        for group in Part::ORDER {
            let sequences = group.iter().map(async |parts| {
                for part in parts.iter().filter(|part| self.has(**part)) {
                    self.suite(prepared, *part).await?;
                }
                Ok(())
            });
            join_all(sequences).await.into_iter().collect::<Result<()>>()?;
        }
        Ok(())
    }

    async fn suite(&self, prepared: &Prepared, part: Part) -> Result<()> {
        let Prepared { programs, tools, suites: compiled } = prepared;
        let (name, suite) = match part {
            Part::E2e => ("end-to-end tests", "e2e"),
            Part::Package => ("tests of the images", "e2e"),
            Part::Swarm => return self.swarm(programs, tools, compiled).await,
            Part::Kubernetes => ("pods of a real cluster", "faults"),
            Part::Faults => ("fault tests", "faults"),
            Part::Page => ("tests of the page", "page"),
            Part::Hostile => ("hostile requests", "hostile"),
            Part::Up => return self.up().await,
            Part::Lints | Part::Unit => return Ok(()),
        };
        let Some(mut tests) = suite_command(compiled, suite, programs, tools) else {
            return Ok(());
        };
        tests.args(self.name.or((part == Part::Package).then_some("packages::")));
        if part == Part::E2e && self.name.is_none() {
            tests.args(swarm::OWN_MODULES.iter().flat_map(|module| ["--skip", module]));
        }
        if part == Part::Kubernetes {
            // A name selects one of them.
            if self.name.is_none() {
                tests.arg(kubernetes::SCENARIOS);
            }
            let programs = tools.variable(kubernetes::PROGRAMS).ok();
            let run = Box::pin(kubernetes::run(self.stop, programs, tests));
            return self.report.step(name, run).await.map(|_| ());
        }
        self.report.step(name, show(self.stop, tests)).await.map(|_| ())
    }

    /// Whether tests may use Engines that form a Swarm.
    fn uses_swarm(&self) -> bool {
        let by_name = self.name.is_some() && (self.has(Part::E2e) || self.has(Part::Faults));
        self.has(Part::Swarm) || by_name
    }

    /// Tests on a Swarm that all of them share, those that start their own, and faults.
    async fn swarm(&self, programs: &Programs, tools: &Tools, compiled: &[Suite]) -> Result<()> {
        let suite = |name: &str| suite_command(compiled, name, programs, tools);
        if let Some(tests) = suite("e2e") {
            let engines = tools.variable(swarm::PROGRAMS)?;
            let run = Box::pin(swarm::run(self.stop, engines, tests, self.name));
            self.report.step("end-to-end tests on Swarm", run).await?;
        }
        // With a name there is nothing else to choose from.
        if let (Some(mut tests), None) = (suite("e2e"), self.name) {
            tests.args(swarm::OWN_MODULES);
            self.report.step("tests with a Swarm of their own", show(self.stop, tests)).await?;
        }
        if let (Some(mut tests), None) = (suite("faults"), self.name) {
            tests.arg("Swarm");
            self.report.step("faults of a Swarm", show(self.stop, tests)).await?;
        }
        Ok(())
    }

    /// What needs neither Envoy nor Docker.
    async fn rest(&self) -> Result<()> {
        // The lints compile the filter, and wait for downloads in between.
        let (unit, lints) = tokio::join!(self.unit(), self.lints());
        unit?;
        lints
    }

    /// Compiles and lints everything, and runs unit and property tests.
    async fn unit(&self) -> Result<()> {
        let Self { stop, report, .. } = self;
        if !self.has(Part::Unit) && !self.has(Part::Lints) {
            return Ok(());
        }
        let build = async {
            // Benchmarks are compiled for their lints.
            let build = linted(&["build", "--workspace", "--all-targets"])?;
            self.in_background("building unit tests", build).await
        };
        let built = report.step("unit tests: build, lints", build).await?;
        let has_tools = match self.has(Part::Unit) {
            true => report.step("Postgres", tools::postgres(stop)).await?.is_some(),
            false => false,
        };
        if built.is_none() || !has_tools {
            return Ok(());
        }
        let tests =
            async { self.in_background("unit and property tests", self.unit_tests().await?).await };
        report.step("unit and property tests", tests).await?;
        let examples = async {
            let examples = self.named(linted(&["test", "--workspace", "--doc"])?);
            self.in_background("examples in comments", examples).await
        };
        report.step("examples in comments", examples).await?;
        Ok(())
    }

    /// All lints but Clippy's for this machine, which compile everything and so are part of
    /// [`Self::unit`].
    async fn lints(&self) -> Result<()> {
        let Self { stop, report, .. } = self;
        if !self.has(Part::Lints) {
            return Ok(());
        }
        report.step("dependencies", tools::check_dependencies(stop)).await?;
        report.step("file formats", formats::check(stop)).await?;
        let rules = async {
            let promtool = tools::promtool(stop).await?;
            tools::test_alert_rules(stop, &promtool).await
        };
        report.step("alert rules", rules).await?;
        let lints = async { self.in_background("lints, wasm", wasm::lints(stop).await?).await };
        report.step("lints, wasm", lints).await?;
        Ok(())
    }

    async fn unit_tests(&self) -> Result<Command> {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins"];
        let targets = integration_tests().await?;
        arguments.extend(targets.iter().flat_map(|target| ["--test", target]));
        let mut tests = self.named(linted(&arguments)?);
        tests.env("RUST_TEST_THREADS", UNIT_THREADS);
        Ok(tests)
    }

    /// Runs only the tests that are asked for.
    fn named(&self, mut tests: Command) -> Command {
        if let Some(name) = self.name {
            tests.args(["--", name]);
        }
        tests
    }

    /// Runs it with low priority, and shows its output at its end.
    async fn in_background(&self, name: &str, command: Command) -> Result<()> {
        let mut step = Step::start(name);
        command::run_and_show(self.stop, &mut step, nice(with_progress(command))).await?;
        step.done("");
        Ok(())
    }

    /// The command that people try first.
    async fn up(&self) -> Result<()> {
        if !self.has(Part::Up) {
            return Ok(());
        }
        for (name, more) in
            [("cargo xtask up --once", None), ("cargo xtask up --once --tls", Some("--tls"))]
        {
            let run = async {
                let arguments = ["xtask", "up", "--once", "--sandbox", "--free-ports"];
                let arguments: Vec<&str> = arguments.into_iter().chain(more).collect();
                show(self.stop, linted(&arguments)?).await
            };
            self.report.step(name, run).await?;
        }
        Ok(())
    }
}

/// Runs this compiled suite with everything that it uses.
fn suite_command(
    compiled: &[Suite],
    name: &str,
    programs: &Programs,
    tools: &Tools,
) -> Option<Command> {
    let suite = compiled.iter().find(|it| it.name == name)?;
    let mut tests = Command::new(&suite.program);
    // As Cargo runs it.
    tests.current_dir(workspace::root().join("tests"));
    programs.pass_to(&mut tests);
    tests.envs(tools.variables.iter().map(|(name, value)| (name, value)));
    if suite.name == "e2e" {
        tests.args(["--test-threads", END_TO_END_THREADS]);
    }
    Some(tests)
}

/// The same command with lower priority: a quarter of a processor that others use too, since
/// connections have to be made within the usual limits.
fn nice(command: Command) -> Command {
    let command = command.into_std();
    let mut nice = std::process::Command::new("nice");
    nice.arg("--adjustment=6").arg(command.get_program()).args(command.get_args());
    nice.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        nice.current_dir(directory);
    }
    nice.into()
}

/// Cargo with Clippy as the compiler of this workspace's packages: it compiles and lints them in
/// one go. `cargo clippy` would only check, and every library would be compiled a second time for
/// that. Clippy's driver turns off an optimization that unoptimized builds do without anyway.
fn linted(arguments: &[&str]) -> Result<Command> {
    let mut command = cargo(arguments);
    command
        .env("RUSTC_WORKSPACE_WRAPPER", clippy_driver()?)
        // As `cargo clippy -- --deny=warnings` passes it.
        .env("CLIPPY_ARGS", "--deny=warnings__CLIPPY_HACKERY__");
    Ok(command)
}

fn clippy_driver() -> Result<PathBuf> {
    const DRIVER: &str = "clippy-driver";
    match crate::rootfs::find(DRIVER) {
        Some(driver) => Ok(driver),
        None => bail!("{DRIVER} is missing; run `rustup component add clippy`"),
    }
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

pub(crate) async fn show(stop: &Stop, command: Command) -> Result<()> {
    eprintln!("\n$ {}", command::describe(&command));
    command::show(stop, command).await
}
