//! Checks files that other programs read against those programs' schemas.

use std::path::PathBuf;

use anyhow::{Result, ensure};
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

/// Others have resources of gateways, which [`check`] compares with other schemas.
const MANIFESTS: [&str; 4] = [
    "packaging/kubernetes/edgerunner.yaml",
    "packaging/kubernetes/envoy.yaml",
    "packaging/kubernetes/high-availability.yaml",
    "packaging/kubernetes/runners.yaml",
];
/// That of k8s-openapi's types.
const KUBERNETES_VERSION: &str = "1.37";

/// The unit's highest exposure by `systemd-analyze`: ten times the number that it prints.
const EXPOSURE_MAX: &str = "20";

pub(crate) async fn check(stop: &Stop) -> Result<()> {
    let requirements = workspace::root().join("tests/schemas/requirements.txt");
    let packages = python::packages(stop, "check-jsonschema", &requirements).await?;
    let mut step = Step::start("file formats");
    for (schema, files) in FILES {
        let mut check = packages.command();
        check.args(["-m", "check_jsonschema", "--builtin-schema", schema]).args(files);
        command::run(stop, &mut step, check).await?;
    }
    let mut gateways = packages.command();
    gateways.arg("tests/schemas/check_gateways.py");
    command::run(stop, &mut step, gateways).await?;
    unit(stop, &mut step).await?;
    step.done("workflows, Compose file, gateways' resources, unit");
    kubernetes(stop).await
}

/// The manifests, what the chart renders to, and the pods of runners, as a unit test writes them.
async fn kubernetes(stop: &Stop) -> Result<()> {
    let requirements = workspace::root().join("tests/schemas/kubernetes.txt");
    let packages = python::packages(stop, "kubernetes-validate", &requirements).await?;
    let mut step = Step::start("Kubernetes resources");
    let rendered = workspace::target().join("chart");
    python::remove(&rendered)?;
    let mut render = packages.command();
    render.arg("tests/schemas/render_chart.py").arg(&rendered);
    command::run(stop, &mut step, render).await?;
    let mut files: Vec<PathBuf> =
        MANIFESTS.iter().map(|name| workspace::root().join(name)).collect();
    let pods = workspace::root().join("sidecar/src/provider/kubernetes/pod");
    for (directory, extension) in [(rendered, "yaml"), (pods, "json")] {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        files.extend(paths.filter(|path| path.extension().is_some_and(|it| it == extension)));
    }
    ensure!(files.len() > MANIFESTS.len(), "no pod of a runner is there to check");
    let mut check = packages.command();
    check
        .args(["-m", "kubernetes_validate", "--strict", "--quiet"])
        .args(["-k", KUBERNETES_VERSION])
        .args(&files);
    command::run(stop, &mut step, check).await?;
    step.done("manifests, chart, pods of runners");
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
