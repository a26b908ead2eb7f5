//! Checks files that other programs read against those programs' schemas.

use anyhow::Result;
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::python;
use crate::rootfs::find;
use crate::stop::Stop;

/// Schemas in check-jsonschema, and the files that follow them.
const FILES: [(&str, &[&str]); 2] = [
    ("vendor.github-workflows", &[".github/workflows/ci.yml", ".github/workflows/release.yml"]),
    ("vendor.compose-spec", &["compose.yaml"]),
];

/// The unit's highest exposure by `systemd-analyze`: ten times the number that it prints.
const EXPOSURE_MAX: &str = "20";

pub(crate) async fn check(stop: &Stop) -> Result<()> {
    let requirements = workspace::root().join("tests/schemas/requirements.txt");
    let packages = python::packages(stop, "check-jsonschema", &requirements).await?;
    let mut step = Step::start("file formats");
    for (schema, files) in FILES {
        let mut check = Command::new(packages.python);
        check
            .args(["-m", "check_jsonschema", "--builtin-schema", schema])
            .args(files)
            .env("PYTHONPATH", &packages.directory)
            .current_dir(workspace::root());
        command::run(stop, &mut step, check).await?;
    }
    unit(stop, &mut step).await?;
    step.done("workflows, Compose file, unit");
    Ok(())
}

async fn unit(stop: &Stop, step: &mut Step) -> Result<()> {
    const PROGRAM: &str = "systemd-analyze";
    if find(PROGRAM).is_none() {
        apt::install(stop, step, &["systemd"], PROGRAM).await?;
    }
    let unit = workspace::root().join("packaging/edgerunner.service");
    // It looks for the program, which is not installed here.
    let verified = workspace::target().join("edgerunner.service");
    let text = std::fs::read_to_string(&unit)?;
    std::fs::write(&verified, text.replace("/usr/bin/edgerunner", "/bin/true"))?;
    let mut verify = Command::new(PROGRAM);
    // Without it, an unknown field is no error.
    verify.args(["verify", "--recursive-errors=no"]).arg(verified);
    command::run(stop, step, verify).await?;
    let mut security = Command::new(PROGRAM);
    security.args(["security", "--offline=yes", "--threshold", EXPOSURE_MAX]).arg(unit);
    command::run(stop, step, security).await
}
