//! A Docker Engine that can be part of a Swarm, from Debian's packages. They are unpacked, not
//! installed, so this machine's own Engine stays what it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::python::remove;
use crate::rootfs::find;
use crate::stop::Stop;

/// Lines of `SHA256  PATH`, each for one architecture.
const PACKAGES: &str = include_str!("../engine/SHA256SUMS");
/// Downloads a file with apt's own settings.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// Used unless this machine's apt has a mirror.
const MIRROR: &str = "http://deb.debian.org/debian";
const STAMP: &str = "SHA256SUMS";

/// A package in Debian's archive.
struct Package {
    sha256: &'static str,
    /// Relative to the root of a mirror.
    path: &'static str,
}

/// Unpacks the packages to `target/engine`, unless they are there. Returns the directory with
/// `bin` and `sbin`.
pub(crate) async fn engine(stop: &Stop) -> Result<PathBuf> {
    let mut step = Step::start("Docker Engine for Swarm");
    let directory = workspace::target().join("engine");
    let unpacked = std::fs::read_to_string(directory.join(STAMP));
    if unpacked.ok().as_deref() != Some(PACKAGES) {
        unpack(stop, &mut step, &directory).await?;
    }
    step.done(&workspace::shown(&directory));
    Ok(directory.join("usr"))
}

async fn unpack(stop: &Stop, step: &mut Step, directory: &Path) -> Result<()> {
    if !Path::new(APT_HELPER).is_file() || find("dpkg-deb").is_none() {
        bail!(
            "the tests of Swarm unpack Debian's packages with apt and dpkg, which are missing; \
             run them on Debian or Ubuntu"
        );
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("the tests of Swarm need x86-64 or arm64, and this is {other}"),
    };
    // Renamed at the end, so that an interrupted download is never used.
    let partial = directory.with_extension("partial");
    remove(&partial)?;
    std::fs::create_dir_all(&partial)?;
    let mirror = mirror().await;
    for Package { sha256, path } in packages(architecture)? {
        step.detail(path);
        let file = partial.join("package.deb");
        let mut download = Command::new(APT_HELPER);
        download
            .args(["download-file", &format!("{mirror}/{path}")])
            .arg(&file)
            .arg(format!("SHA256:{sha256}"));
        command::run(stop, step, download).await.with_context(|| {
            format!(
                "if {mirror} has a newer version, write its path and hash into \
                 xtask/engine/SHA256SUMS, for both architectures"
            )
        })?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&file).arg(&partial);
        command::run(stop, step, unpack).await?;
        std::fs::remove_file(&file)?;
    }
    std::fs::write(partial.join(STAMP), PACKAGES)?;
    remove(directory)?;
    std::fs::rename(&partial, directory)
        .with_context(|| format!("cannot move packages to {}", directory.display()))
}

/// The root of the mirror of Debian that this machine's apt uses.
async fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Label: Debian"]);
    let targets = command::output(targets).await.unwrap_or_default();
    let first = targets.lines().find(|uri| uri.starts_with("http"));
    first.unwrap_or(MIRROR).trim_end_matches('/').to_owned()
}

fn packages(architecture: &str) -> Result<Vec<Package>> {
    let suffix = format!("_{architecture}.deb");
    let lines = PACKAGES.lines().filter_map(|line| line.split_once("  "));
    let packages = lines.map(|(sha256, path)| Package { sha256, path });
    let packages: Vec<_> = packages.filter(|package| package.path.ends_with(&suffix)).collect();
    ensure!(!packages.is_empty(), "xtask/engine/SHA256SUMS has no package for {architecture}");
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_architectures_have_the_same_packages() {
        let names = |architecture: &str| -> Vec<String> {
            let packages = packages(architecture).unwrap();
            let path = |package: &Package| package.path.replace(architecture, "ARCH");
            assert!(packages.iter().all(|package| package.sha256.len() == 64));
            packages.iter().map(path).collect()
        };
        assert_eq!(names("amd64"), names("arm64"));
        assert_eq!(names("amd64").len() * 2, PACKAGES.lines().count());
    }
}
