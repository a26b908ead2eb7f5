//! Builds the files of a release for this machine's architecture.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::workspace;

use crate::cargo::Profile;
use crate::packages;
use crate::stop::Stop;
use crate::wasm;

/// The version of all packages in this workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail unless this tag, such as v1.2.3, matches the version in Cargo.toml
    #[arg(long)]
    tag: Option<String>,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if let Some(tag) = args.tag {
        ensure!(
            tag.strip_prefix('v') == Some(VERSION),
            "the tag {tag} is not v{VERSION}: set `version` in Cargo.toml and tag that commit"
        );
    }
    let module = wasm::build(stop).await?;
    let sidecar = packages::static_sidecar(stop, Profile::Release).await?;
    let directory = workspace::target().join("package");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let architecture = std::env::consts::ARCH;
    let name = format!("edgerunner-{VERSION}-linux-{architecture}");
    copy(&sidecar, &directory.join("files").join(name))?;
    copy(&module, &directory.join(format!("files/edgerunner_filter-{VERSION}.wasm")))?;
    packages::debian(stop, &directory.join("files")).await?;
    for (stage, files) in packages::stages(&module, &sidecar) {
        // The stage `build-…` leaves them in /out.
        let out = directory.join(stage.replace("build", "image")).join("out");
        std::fs::create_dir_all(out.join("empty"))?;
        for (file, name) in files {
            copy(&file, &out.join(name))?;
        }
    }
    println!("{}", directory.join("files").display());
    Ok(())
}

fn copy(from: &Path, to: &PathBuf) -> Result<()> {
    let copy = || {
        std::fs::create_dir_all(to.parent().unwrap_or(to))?;
        std::fs::copy(from, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_name_the_version_that_is_released() {
        let mut named = 0;
        for name in ["edgerunner.yaml", "istio.yaml", "envoy-gateway.yaml"] {
            let path = workspace::root().join("packaging/kubernetes").join(name);
            let text = std::fs::read_to_string(path).unwrap();
            for line in text.lines().filter(|line| line.contains("registry.example/")) {
                assert!(line.ends_with(&format!(":{VERSION}")), "{name}: {line}");
                named += 1;
            }
        }
        assert_eq!(named, 3);
    }
}
