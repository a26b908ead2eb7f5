//! The image of the sandbox's runner: one static binary and nothing else.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::build::{Profile, cargo};
use crate::command;
use crate::docker::Engine;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

pub(crate) const RUNNER: &str = "edgerunner/sandbox-runner:local";

/// The variable in which it finds its registration, as the real image does.
pub(crate) const CREDENTIALS: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

const BINARY: &str = "edgerunner-sandbox-runner";

/// Builds the stand-in runner and the image it runs in.
pub(crate) async fn build(stop: &Stop, engine: &Engine, profile: Profile) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "the stand-in runner has to be built on Linux, since it runs in a Linux container; \
             use Linux, or run against GitHub itself with GITHUB_TOKEN set"
        );
    }
    let mut step = Step::start("building the sandbox runner's image");
    let arguments = [
        "rustc",
        profile.flag(),
        "--package=edgerunner-sandbox",
        "--bin",
        BINARY,
        "--",
        // The image holds no libc to load. For this one binary only, so that
        // every library it uses is shared with the other builds.
        "-Ctarget-feature=+crt-static",
        "-Cstrip=symbols",
    ];
    command::run(stop, &mut step, cargo(arguments)).await?;
    let binary = profile.directory().join(BINARY);
    let dockerfile = workspace::root().join("sandbox/Dockerfile");
    let context = context(&dockerfile, &binary)?;
    step.detail("docker build");
    stop.or(assemble(engine.client(), context)).await?;
    step.done(RUNNER);
    Ok(())
}

/// What `docker build` would send: the Dockerfile and the binary.
fn context(dockerfile: &Path, binary: &Path) -> Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    // Docker does not read GNU's form for files with holes.
    archive.sparse(false);
    archive.mode(tar::HeaderMode::Deterministic);
    archive
        .append_path_with_name(dockerfile, "Dockerfile")
        .with_context(|| format!("cannot read {}", dockerfile.display()))?;
    archive
        .append_path_with_name(binary, BINARY)
        .with_context(|| format!("cannot read {}", binary.display()))?;
    Ok(archive.into_inner()?.into())
}

/// Through the Engine's own builder: neither the `docker` command nor its
/// buildx plug-in need to be installed.
async fn assemble(docker: &Docker, context: Bytes) -> Result<()> {
    let before = image_id(docker).await;
    let options = BuildImageOptionsBuilder::default().t(RUNNER).rm(true).forcerm(true).build();
    let output: Vec<_> = docker
        .build_image(options, None, Some(bollard::body_full(context)))
        .try_collect()
        .await
        .context("the sandbox runner's image cannot be built")?;
    if let Some(error) = output.into_iter().find_map(|info| info.error_detail) {
        bail!(
            "the sandbox runner's image cannot be built: {}",
            error.message.unwrap_or_else(|| "Docker does not say why".to_owned())
        );
    }
    let after = image_id(docker).await;
    // The name has moved on to the new image; the old one would stay as
    // `<none>`, one more for every change to the runner.
    if let Some(old) = before.filter(|old| after.as_ref() != Some(old)) {
        let _ = docker.remove_image(&old, None::<RemoveImageOptions>, None).await;
    }
    Ok(())
}

async fn image_id(docker: &Docker) -> Option<String> {
    docker.inspect_image(RUNNER).await.ok()?.id
}
