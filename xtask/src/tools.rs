//! Programs that the tests and benchmarks use: found on this machine, or installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use edgerunner_testkit::{postgres, workspace};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::python::{self, Packages};
use crate::stop::Stop;

/// The path of axe-core's script in its Python package.
const AXE: &str = "axe_playwright_python/axe.min.js";

/// `docker`'s plug-in, and the stand-alone program.
const COMPOSE: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];

/// For the tests of the status page.
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
    /// axe-core, which finds accessibility problems.
    pub(crate) axe: PathBuf,
}

/// The fonts in the references of the page's looks.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

pub(crate) async fn browser(stop: &Stop) -> Result<Browser> {
    if !Path::new(FONT).exists() {
        let mut step = Step::start("fonts");
        apt::install(stop, &mut step, &["fonts-dejavu-core"], "DejaVu Sans").await?;
        step.done(FONT);
    }
    Ok(Browser {
        chromium: apt::program(stop, "chromium", "chromium").await?,
        chromedriver: apt::program(stop, "chromedriver", "chromium-driver").await?,
        axe: packages(stop, "axe-core").await?.directory.join(AXE),
    })
}

/// The image registry that the tests pull from.
pub(crate) async fn registry(stop: &Stop) -> Result<PathBuf> {
    apt::program(stop, "docker-registry", "docker-registry").await
}

/// Returns the command that runs Docker Compose, in one or two words.
pub(crate) async fn compose(stop: &Stop) -> Result<String> {
    let mut step = Step::start("Docker Compose");
    if let Some((words, version)) = find_compose().await {
        step.done(&version);
        return Ok(words);
    }
    apt::install(stop, &mut step, &["docker-compose"], "Docker Compose").await?;
    let Some((words, version)) = find_compose().await else {
        bail!("docker-compose is installed but does not run");
    };
    step.done(&version);
    Ok(words)
}

async fn find_compose() -> Option<(String, String)> {
    for form in COMPOSE {
        let mut words = form.iter();
        let mut version = Command::new(words.next()?);
        version.args(words).args(["version", "--short"]);
        if let Some(version) = command::output(version).await {
            return Some((form.join(" "), version.trim().to_owned()));
        }
    }
    None
}

pub(crate) async fn podman(stop: &Stop) -> Result<PathBuf> {
    apt::program(stop, "podman", "podman").await
}

pub(crate) async fn promtool(stop: &Stop) -> Result<PathBuf> {
    apt::program(stop, "promtool", "prometheus").await
}

/// Debian's package would also create and start a server, which the tests have no use for.
pub(crate) async fn postgres(stop: &Stop) -> Result<()> {
    const SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";
    let mut step = Step::start("Postgres");
    if postgres::programs().is_err() {
        if rustix::process::geteuid().is_root() {
            apt::install(stop, &mut step, &["postgresql-common"], "Postgres").await?;
            let settings = fs::read_to_string(SETTINGS)?;
            fs::write(SETTINGS, format!("{settings}\ncreate_main_cluster = false\n"))?;
        }
        apt::install(stop, &mut step, &["postgresql"], "Postgres").await?;
    }
    step.done(&postgres::programs()?.display().to_string());
    Ok(())
}

/// Schemathesis tests the HTTP API against its OpenAPI description.
pub(crate) async fn schemathesis(stop: &Stop) -> Result<Packages> {
    packages(stop, "schemathesis").await
}

/// Canaille is an OpenID Connect provider.
pub(crate) async fn canaille(stop: &Stop) -> Result<Packages> {
    packages(stop, "canaille").await
}

/// Checks the alert rules, and runs their unit tests.
pub(crate) async fn test_alert_rules(stop: &Stop, promtool: &Path) -> Result<()> {
    let mut step = Step::start("alert rules");
    for arguments in [
        ["check", "rules", "--lint-fatal", "alerts.yaml"].as_slice(),
        &["test", "rules", "alerts.test.yaml"],
    ] {
        let mut command = Command::new(promtool);
        command.args(arguments).current_dir(workspace::root().join("packaging/prometheus"));
        command::run(stop, &mut step, command).await?;
    }
    step.done("packaging/prometheus");
    Ok(())
}

/// Checks dependencies against `deny.toml`. Advisories change from day to day and need
/// the network, so they are left to CI.
pub(crate) async fn check_dependencies(stop: &Stop) -> Result<()> {
    let installed = packages(stop, "cargo-deny").await?.directory;
    let mut step = Step::start("dependencies");
    let mut check = Command::new(installed.join("bin/cargo-deny"));
    check.args(["check", "licenses", "bans", "sources"]).current_dir(workspace::root());
    command::run(stop, &mut step, check).await?;
    step.done("licenses, bans, sources");
    Ok(())
}

/// Installs the Python packages of `xtask/NAME/requirements.txt`.
async fn packages(stop: &Stop, name: &str) -> Result<Packages> {
    let requirements = workspace::root().join("xtask").join(name).join("requirements.txt");
    python::packages(stop, name, &requirements).await
}
