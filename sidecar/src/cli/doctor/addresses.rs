//! Checks Envoy's list of the addresses that may send webhooks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{fix::Fix, report::Report};
use crate::{
    cli::github_addresses::{self, Listed},
    config::Config,
};

const NAME: &str = "github_addresses.yaml";
const ENVOY: &str = "/etc/envoy";

/// Only files that exist are checked: next to the configuration, as `init` writes it, and where
/// Envoy's package has it.
pub(super) fn check(config: &Config, file: Option<&Path>, report: &mut Report) {
    let own = file.and_then(Path::parent).map(Path::to_owned);
    let directories = own.into_iter().chain([PathBuf::from(ENVOY)]);
    let mut found = Vec::new();
    for path in directories.map(|directory| directory.join(NAME)) {
        let name = format!("addresses in {}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => found.push((name, path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.skipped(name, error),
        }
    }
    if found.is_empty() {
        return;
    }
    let current = github_addresses::get(config);
    for (name, path, text) in found {
        let Some(listed) = Listed::read(&text) else {
            let what = format!(
                "webhooks from everywhere are let through to the check of their signature; to \
                 restrict them to GitHub, run `edgerunner github-addresses --output {}`",
                path.display()
            );
            report.ok(name, what);
            continue;
        };
        match &current {
            Ok(current) if listed.is(current) => report.ok(name, "GitHub's current IP ranges"),
            Ok(current) => {
                let what = format!(
                    "they differ from GitHub's current IP ranges, so webhooks may be refused: run \
                     `edgerunner github-addresses --output {}`",
                    path.display()
                );
                report.warning(name, what);
                let (ranges, hook_path) = (current.clone(), listed.path);
                report.fix(Fix::WriteAddresses { file: path, hook_path, ranges });
            }
            Err(error) => report.skipped(name, format!("{error:#}")),
        }
    }
}
