//! Packages of Debian's archive that are unpacked, not installed, so this machine's own programs
//! stay what they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::python::remove;
use crate::rootfs::find;
use crate::stop::Stop;

/// A Docker Engine that can be part of a Swarm.
pub(crate) const ENGINE: Packages =
    Packages { list: include_str!("../engine/SHA256SUMS"), directory: "engine" };
/// etcd, containerd and kubectl, the source of Kubernetes, and a Go compiler for it.
pub(crate) const KUBERNETES: Packages =
    Packages { list: include_str!("../kubernetes/SHA256SUMS"), directory: "kubernetes" };

/// Downloads a file with apt's own settings.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// Used unless this machine's apt has a mirror.
const MIRROR: &str = "http://deb.debian.org/debian";
const STAMP: &str = "SHA256SUMS";

/// Packages and source archives.
pub(crate) struct Packages {
    /// Lines of `SHA256  PATH`, each for one architecture or for all. The path is relative to the
    /// root of a mirror.
    list: &'static str,
    /// In `xtask/`, that of the list; in `target/`, where they are unpacked.
    directory: &'static str,
}

struct File {
    sha256: &'static str,
    path: &'static str,
}

/// Unpacks the programs of a Docker Engine, unless they are there. Returns the directory with
/// `bin` and `sbin`.
pub(crate) async fn engine(stop: &Stop) -> Result<PathBuf> {
    let mut step = Step::start("Docker Engine for Swarm");
    let directory = ENGINE.directory();
    if !ENGINE.are_unpacked() {
        let partial = ENGINE.unpack(stop, &mut step).await?;
        ENGINE.finish(&partial)?;
    }
    step.done(&workspace::shown(&directory));
    Ok(directory.join("usr"))
}

impl Packages {
    pub(crate) fn directory(&self) -> PathBuf {
        workspace::target().join(self.directory)
    }

    pub(crate) fn are_unpacked(&self) -> bool {
        let unpacked = std::fs::read_to_string(self.directory().join(STAMP));
        unpacked.is_ok_and(|list| list == self.list)
    }

    /// Unpacks them to a directory of their own, for [`Self::finish`]: an interrupted download is
    /// never used.
    pub(crate) async fn unpack(&self, stop: &Stop, step: &mut Step) -> Result<PathBuf> {
        if !Path::new(APT_HELPER).is_file() || find("dpkg-deb").is_none() {
            bail!(
                "these tests unpack Debian's packages with apt and dpkg, which are missing; \
                 run them on Debian or Ubuntu"
            );
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("these tests need x86-64 or arm64, and this is {other}"),
        };
        let partial = self.directory().with_extension("partial");
        remove(&partial)?;
        std::fs::create_dir_all(&partial)?;
        let mirror = mirror().await;
        for File { sha256, path } in self.files(architecture)? {
            step.detail(path);
            let file = partial.join("download");
            let mut download = Command::new(APT_HELPER);
            download
                .args(["download-file", &format!("{mirror}/{path}")])
                .arg(&file)
                .arg(format!("SHA256:{sha256}"));
            command::run(stop, step, download).await.with_context(|| {
                format!(
                    "if {mirror} has a newer version, write its path and hash into \
                     xtask/{}/SHA256SUMS, for all architectures",
                    self.directory
                )
            })?;
            let mut unpack;
            if is_source(path) {
                unpack = Command::new("tar");
                unpack.arg("--extract").arg("--file").arg(&file).arg("--directory").arg(&partial);
            } else {
                unpack = Command::new("dpkg-deb");
                unpack.arg("--extract").arg(&file).arg(&partial);
            }
            command::run(stop, step, unpack).await?;
            std::fs::remove_file(&file)?;
        }
        Ok(partial)
    }

    /// Moves what [`Self::unpack`] has returned to [`Self::directory`].
    pub(crate) fn finish(&self, partial: &Path) -> Result<()> {
        let directory = self.directory();
        std::fs::write(partial.join(STAMP), self.list)?;
        remove(&directory)?;
        std::fs::rename(partial, &directory)
            .with_context(|| format!("cannot move packages to {}", directory.display()))
    }

    fn files(&self, architecture: &str) -> Result<Vec<File>> {
        let suffixes = [format!("_{architecture}.deb"), "_all.deb".to_owned()];
        let lines = self.list.lines().filter_map(|line| line.split_once("  "));
        let files = lines.map(|(sha256, path)| File { sha256, path });
        let is_for = |file: &File| suffixes.iter().any(|suffix| file.path.ends_with(suffix));
        let files: Vec<_> = files.filter(|file| is_for(file) || is_source(file.path)).collect();
        let directory = self.directory;
        ensure!(!files.is_empty(), "xtask/{directory}/SHA256SUMS has nothing for {architecture}");
        Ok(files)
    }
}

fn is_source(path: &str) -> bool {
    path.ends_with(".tar.gz")
}

/// The root of the mirror of Debian that this machine's apt uses.
async fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Label: Debian"]);
    let targets = command::output(targets).await.unwrap_or_default();
    let first = targets.lines().find(|uri| uri.starts_with("http"));
    first.unwrap_or(MIRROR).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_architectures_have_the_same_packages() {
        for packages in [ENGINE, KUBERNETES] {
            let names = |architecture: &str| -> Vec<String> {
                let files = packages.files(architecture).unwrap();
                assert!(files.iter().all(|file| file.sha256.len() == 64));
                files.iter().map(|file| file.path.replace(architecture, "ARCH")).collect()
            };
            assert_eq!(names("amd64"), names("arm64"));
            assert!(names("amd64").len() >= 3);
        }
    }
}
