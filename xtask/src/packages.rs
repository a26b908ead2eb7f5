//! The static sidecar, the Debian package, and the images of `packaging/Dockerfile`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use edgerunner_testkit::programs::LAUNCHER_IMAGE;
use edgerunner_testkit::{Programs, workspace};
use tokio::process::Command;

use crate::apt;
use crate::cargo::{Profile, cargo};
use crate::command;
use crate::docker::Engine;
use crate::image::{self, Image};
use crate::progress::Step;
use crate::rootfs::{BuildContext, find};
use crate::stop::Stop;
use crate::target;

pub(crate) const FILTER: &str = "edgerunner-filter:local";
const SIDECAR: &str = LAUNCHER_IMAGE;
const ENVOY: &str = "edgerunner-envoy:local";
const SANDBOX: &str = "edgerunner-sandbox:local";
/// Replaces Envoy's image in the tests, which have no registry.
const ENVOY_BASE: &str = "edgerunner/envoy:local";
/// Replaces cloudflared's image there.
const TUNNEL: &str = "edgerunner/tunnel:local";

/// The program that `compose.yaml` starts first in the images of sidecar and Envoy.
const ENTRYPOINT: &str = "edgerunner-entrypoint";

const CARGO_DEB: &str = "cargo-deb@3.8.0";

/// The CAs that the sidecar's image trusts.
const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Builds the sidecar of images and packages, which needs no libraries, and the entry point of
/// images next to it.
pub(crate) async fn static_sidecar(stop: &Stop, profile: Profile) -> Result<PathBuf> {
    let triple = static_target();
    target::add(stop, &triple).await?;
    let mut step = Step::start("building the static sidecar");
    if find("musl-gcc").is_none() {
        // SQLite and ring need it.
        apt::install(stop, &mut step, &["musl-tools"], "musl-gcc").await?;
    }
    for program in ["edgerunner", ENTRYPOINT] {
        let mut build = cargo(["rustc", profile.flag(), "--package", program, "--bin", program]);
        // Without symbols it has a tenth of the size.
        build.args(["--target", &triple, "--", "-Cstrip=symbols"]);
        command::run(stop, &mut step, build).await?;
    }
    let program = profile.directory_of(Some(&triple)).join("edgerunner");
    step.done(&workspace::shown(&program));
    Ok(program)
}

/// Builds a Debian package of the static sidecar, which must have the release profile.
pub(crate) async fn debian(stop: &Stop, directory: &Path) -> Result<()> {
    let mut step = Step::start("Debian package");
    let tools = workspace::target().join("tools");
    let mut install = cargo(["install", "--locked", "--quiet", "--root"]);
    install.arg(&tools).arg(CARGO_DEB);
    // Does nothing if it is installed.
    command::run(stop, &mut step, install).await?;
    let mut deb = Command::new(tools.join("bin/cargo-deb"));
    deb.args(["deb", "--package=edgerunner", "--no-build", "--target", &static_target()])
        .arg("--output")
        .arg(directory)
        .current_dir(workspace::root());
    command::run(stop, &mut step, deb).await?;
    step.done(&workspace::shown(directory));
    Ok(())
}

/// Builds the same images as [`build_images`]. The programs of a release are static; here the
/// images get the libraries of those that are built already.
pub(crate) async fn build_images_with_libraries(
    stop: &Stop,
    engine: &Engine,
    programs: &Programs,
) -> Result<()> {
    build_images(stop, engine, programs, &programs.sidecar).await?;
    let entrypoint = programs.sidecar.with_file_name(ENTRYPOINT);
    image::add_libraries(stop, engine, ENVOY, &entrypoint).await?;
    image::add_libraries(stop, engine, SIDECAR, &programs.sidecar).await
}

/// Builds the images that the tests need, and the replacements of others.
pub(crate) async fn build_images(
    stop: &Stop,
    engine: &Engine,
    programs: &Programs,
    sidecar: &Path,
) -> Result<()> {
    let mut step = Step::start("building the images of packaging/");
    let root = workspace::root();
    let docker = engine.client();

    let mut base = BuildContext::new(&root.join("tests/envoy/Dockerfile"))?;
    base.program_at(&programs.envoy, "envoy").await?;
    step.detail(ENVOY_BASE);
    let base = base.finish()?;
    stop.or(image::assemble(docker, &Image::named(ENVOY_BASE), base)).await?;

    let mut context = BuildContext::with_dockerfile(&prebuilt(&shipped()?)?)?;
    for (stage, files) in stages(&programs.module, sidecar) {
        context.empty_directory(&format!("{stage}/out/empty"))?;
        for (file, name) in files {
            context.file(&file, &format!("{stage}/out/{name}"))?;
        }
    }
    context.tree(&root.join("envoy"), "envoy")?;
    context.program_at(&programs.sandbox, "edgerunner-sandbox").await?;
    let context = context.finish()?;
    let targets =
        [(FILTER, "filter"), (SIDECAR, "sidecar"), (ENVOY, "envoy"), (SANDBOX, "sandbox")];
    for (name, target) in targets {
        step.detail(name);
        let arguments = HashMap::from([("ENVOY_IMAGE", ENVOY_BASE)]);
        let image = Image { name, target, arguments };
        stop.or(image::assemble(docker, &image, context.clone())).await?;
    }

    let tunnel = root.join("tests/tunnel");
    let mut context = BuildContext::new(&tunnel.join("Dockerfile"))?;
    context.program("sh").await?;
    for file in ["cloudflared", "tunnel.yaml"] {
        context.file(&tunnel.join(file), file)?;
    }
    step.detail(TUNNEL);
    stop.or(image::assemble(docker, &Image::named(TUNNEL), context.finish()?)).await?;
    step.done(&targets.map(|(name, _)| name).join(", "));
    Ok(())
}

/// The stages of `packaging/Dockerfile` that build something for a release, and the files that
/// each leaves in `/out`, beside the directory `/out/empty`.
pub(crate) fn stages(module: &Path, sidecar: &Path) -> [(&'static str, Vec<StageFile>); 3] {
    [
        ("build-filter", vec![(module.to_owned(), "plugin.wasm")]),
        (
            "build-sidecar",
            vec![
                (sidecar.to_owned(), "edgerunner"),
                (CA_CERTIFICATES.into(), "ca-certificates.crt"),
            ],
        ),
        ("build-entrypoint", vec![(sidecar.with_file_name(ENTRYPOINT), ENTRYPOINT)]),
    ]
}

type StageFile = (PathBuf, &'static str);

fn shipped() -> Result<String> {
    let path = workspace::root().join("packaging/Dockerfile");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Removes the stages that build something. Their files are in the context instead, in
/// one directory for each stage. BuildKit can do that with `--build-context`; the Engine's
/// own builder cannot, and would build every stage.
fn prebuilt(dockerfile: &str) -> Result<String> {
    let mut text = dockerfile.to_owned();
    for stage in ["build-filter", "build-sidecar", "build-entrypoint", "build-sandbox"] {
        let begin = format!("FROM ${{RUST_IMAGE}} AS {stage}\n");
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once("\n\n")?;
            Some((before, after))
        });
        let Some((before, after)) = parts else {
            bail!("packaging/Dockerfile has no stage {stage} any more");
        };
        let from = format!(" --from={stage} ");
        let copy = |line: &str| match line.contains(&from) {
            true => line.replace(&from, " ").replace("/out/", &format!("{stage}/out/")) + "\n",
            false => format!("{line}\n"),
        };
        text = before.to_owned() + &after.lines().map(copy).collect::<String>();
    }
    // This machine's sandbox is not static, so it brings its libraries.
    let copy = "COPY build-sandbox/out/edgerunner-sandbox /usr/bin/edgerunner-sandbox\n";
    if !text.contains(copy) {
        bail!("packaging/Dockerfile does not copy the sandbox any more");
    }
    Ok(text.replace(copy, "COPY rootfs/ /\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_compile_are_replaced() {
        let text = prebuilt(&shipped().unwrap()).unwrap();
        assert!(!text.contains("cargo") && !text.contains("--from"), "{text}");
        assert!(text.contains("COPY build-filter/out/plugin.wasm /plugin.wasm\n"), "{text}");
        assert!(text.contains("AS sandbox\nCOPY rootfs/ /\n"), "{text}");
        assert!(prebuilt("FROM scratch").is_err());
    }
}
