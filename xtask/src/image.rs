//! Images for the tests: the sandbox's runner, a Docker Engine for one runner, and Postgres.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use edgerunner_testkit::control_plane::PAUSE_IMAGE;
use edgerunner_testkit::programs::RUNNER_IMAGE;
use edgerunner_testkit::{postgres, workspace};
use futures_util::TryStreamExt;

use crate::apt;
use crate::cargo::Profile;
use crate::docker::Engine;
use crate::progress::Step;
use crate::rootfs::{BuildContext, find};
use crate::stop::Stop;

/// Replaces `docker:dind` in the tests, which have no registry.
pub(crate) const DIND: &str = "edgerunner/dind:local";

/// Replaces the image of Envoy that pools with `egress` use.
pub(crate) const EGRESS: &str = "edgerunner/egress:local";
/// A runner that tries to get around it.
pub(crate) const HOSTILE: &str = "edgerunner/hostile-runner:local";

/// Replaces `postgres`.
const POSTGRES: &str = "edgerunner/postgres:local";

const BINARY: &str = "edgerunner-sandbox-runner";

/// The programs that dockerd, the image's entry point and its health check start.
const DIND_PROGRAMS: [&str; 11] = [
    "dockerd",
    "docker",
    "docker-init",
    "docker-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "iptables",
    "ip6tables",
    "sh",
    "mkdir",
];

/// Builds the image of the sandbox's runner, which [`crate::build::programs`] has built.
pub(crate) async fn build(stop: &Stop, engine: &Engine, profile: Profile) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "the sandbox's runner can only be built on Linux, since it runs in a Linux container; \
             use Linux, or set GITHUB_TOKEN to use GitHub itself"
        );
    }
    let mut step = Step::start("building the sandbox runner's image");
    let mut context = BuildContext::new(&workspace::root().join("sandbox/Dockerfile"))?;
    let program = profile.directory().join(BINARY);
    context.file(&program, "runner/run.sh")?;
    context.libraries_of(&program).await?;
    // For job scripts, and for runners that are parked.
    context.program("sh").await?;
    context.link("bin/sh", Path::new("/usr/bin/sh"))?;
    step.detail("docker build");
    stop.or(assemble(engine.client(), &Image::named(RUNNER_IMAGE), context.finish()?)).await?;
    step.done(RUNNER_IMAGE);
    Ok(())
}

/// Builds the image of a Docker Engine from this machine's programs.
pub(crate) async fn build_dind(stop: &Stop, engine: &Engine) -> Result<()> {
    let mut step = Step::start("building the image of a runner's Docker Engine");
    // Newer versions of Debian have it in its own package.
    if find("docker").is_none() {
        apt::install(stop, &mut step, &["docker-cli"], "the command `docker`").await?;
    }
    let directory = workspace::root().join("tests/dind");
    let mut context = BuildContext::new(&directory.join("Dockerfile"))?;
    context.file(&directory.join("entrypoint.sh"), "entrypoint.sh")?;
    for program in DIND_PROGRAMS {
        context.program(program).await?;
    }
    let architecture = std::env::consts::ARCH;
    let extensions = format!("/usr/lib/{architecture}-linux-gnu/xtables");
    context.directory(Path::new(&extensions)).await?;
    step.detail("docker build");
    stop.or(assemble(engine.client(), &Image::named(DIND), context.finish()?)).await?;
    step.done(DIND);
    Ok(())
}

/// What a hostile job uses, and a shell for `doctor`.
const HOSTILE_PROGRAMS: [&str; 13] = [
    "bash", "cat", "curl", "docker", "getent", "head", "ip", "sh", "sleep", "tail", "tar",
    "timeout", "tr",
];

/// Builds the images of the tests of `egress`: Envoy, and a runner.
pub(crate) async fn build_egress(stop: &Stop, engine: &Engine, envoy: &Path) -> Result<()> {
    let mut step = Step::start("building the images of the tests of egress");
    for (program, package) in [("curl", "curl"), ("ip", "iproute2")] {
        if find(program).is_none() {
            apt::install(stop, &mut step, &[package], program).await?;
        }
    }
    let mut context =
        BuildContext::with_dockerfile("FROM scratch\nCOPY rootfs/ /\nENV PATH=/usr/bin\n")?;
    context.program_at(envoy, "envoy").await?;
    step.detail("docker build");
    stop.or(assemble(engine.client(), &Image::named(EGRESS), context.finish()?)).await?;

    let directory = workspace::root().join("tests/egress");
    let mut context = BuildContext::new(&directory.join("Dockerfile"))?;
    for script in ["ways_out.sh", "inner_ways_out.sh"] {
        context.file(&directory.join(script), script)?;
    }
    for program in HOSTILE_PROGRAMS {
        context.program(program).await?;
    }
    stop.or(assemble(engine.client(), &Image::named(HOSTILE), context.finish()?)).await?;
    step.done(&format!("{EGRESS}, {HOSTILE}"));
    Ok(())
}

/// Builds the image of a Postgres server from this machine's programs.
pub(crate) async fn build_postgres(stop: &Stop, engine: &Engine) -> Result<()> {
    let mut step = Step::start("building the image of Postgres");
    let directory = workspace::root().join("tests/postgres");
    let mut context = BuildContext::new(&directory.join("Dockerfile"))?;
    for file in ["entrypoint.sh", "passwd"] {
        context.file(&directory.join(file), file)?;
    }
    context.empty_directory("empty")?;
    context.program("sh").await?;
    // initdb asks for it by this path.
    context.link("bin/sh", Path::new("/usr/bin/sh"))?;
    let programs = postgres::programs()?;
    for program in ["postgres", "initdb", "pg_isready"] {
        context.under_its_path(&programs.join(program)).await?;
        context.link(&format!("usr/bin/{program}"), &programs.join(program))?;
    }
    let version = programs.parent().context("no directory of a version")?;
    // What initdb loads.
    for library in ["plpgsql.so", "dict_snowball.so"] {
        context.under_its_path(&version.join("lib").join(library)).await?;
    }
    let name = version.file_name().context("no version")?;
    let shared = Path::new("/usr/share/postgresql").join(name);
    context.tree(&shared, &format!("rootfs{}", shared.display()))?;
    step.detail("docker build");
    stop.or(assemble(engine.client(), &Image::named(POSTGRES), context.finish()?)).await?;
    step.done(POSTGRES);
    Ok(())
}

/// Builds the image of pods' network namespaces from its one static program.
pub(crate) async fn build_pause(stop: &Stop, engine: &Engine, program: &Path) -> Result<()> {
    let step = Step::start("building the image of pods");
    let mut context = BuildContext::with_dockerfile(
        "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n",
    )?;
    context.file(program, "pause")?;
    stop.or(assemble(engine.client(), &Image::named(PAUSE_IMAGE), context.finish()?)).await?;
    step.done(PAUSE_IMAGE);
    Ok(())
}

/// Adds the libraries of a program to the image that has it, for one that is not static.
pub(crate) async fn add_libraries(
    stop: &Stop,
    engine: &Engine,
    name: &str,
    program: &Path,
) -> Result<()> {
    let mut context = BuildContext::with_dockerfile(&format!("FROM {name}\nCOPY rootfs/ /\n"))?;
    context.libraries_of(program).await?;
    stop.or(assemble(engine.client(), &Image::named(name), context.finish()?)).await
}

/// An image to build from a Dockerfile.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    /// The stage, or the last one if empty.
    pub(crate) target: &'a str,
    pub(crate) arguments: HashMap<&'a str, &'a str>,
}

impl<'a> Image<'a> {
    pub(crate) fn named(name: &'a str) -> Self {
        Self { name, target: "", arguments: HashMap::new() }
    }
}

/// Uses the Engine's own builder, which needs neither the `docker` command nor buildx.
pub(crate) async fn assemble(docker: &Docker, image: &Image<'_>, context: Bytes) -> Result<()> {
    let Image { name, target, arguments } = image;
    let before = image_id(docker, name).await;
    let options = BuildImageOptionsBuilder::default()
        .t(name)
        .target(target)
        .buildargs(arguments)
        .rm(true)
        .forcerm(true)
        .build();
    let output: Vec<_> = docker
        .build_image(options, None, Some(bollard::body_full(context)))
        .try_collect()
        .await
        .with_context(|| format!("{name} cannot be built"))?;
    if let Some(error) = output.into_iter().find_map(|info| info.error_detail) {
        bail!(
            "{name} cannot be built: {}",
            error.message.unwrap_or_else(|| "Docker gives no reason".to_owned())
        );
    }
    let after = image_id(docker, name).await;
    // Without its name, the old image would stay as `<none>`.
    if let Some(old) = before.filter(|old| after.as_ref() != Some(old)) {
        let _ = docker.remove_image(&old, None::<RemoveImageOptions>, None).await;
    }
    Ok(())
}

async fn image_id(docker: &Docker, name: &str) -> Option<String> {
    docker.inspect_image(name).await.ok()?.id
}
