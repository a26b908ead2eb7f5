//! Free disk space.

use std::path::Path;

use super::report::Report;
use crate::config::Config;

/// A store of a million jobs is smaller.
const STORE_MIB_MIN: u64 = 1024;
/// GitHub's runner image takes about 2 GB, and jobs write to their containers.
const DOCKER_MIB_MIN: u64 = 10 * 1024;

pub(super) fn check_store(config: &Config, report: &mut Report) {
    if config.database.is_some() {
        return;
    }
    // `serve` creates the store and its directories if they are missing.
    let existing = config.store.path.ancestors().skip(1).find(|it| it.exists());
    let directory = existing.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check(directory, "the store", STORE_MIB_MIN, report);
}

pub(super) fn check_docker(directory: &Path, report: &mut Report) {
    check(directory, "Docker", DOCKER_MIB_MIN, report);
}

fn check(directory: &Path, whose: &str, mib_min: u64, report: &mut Report) {
    let name = format!("disk space of {whose}");
    let path = directory.display();
    match rustix::fs::statvfs(directory) {
        Ok(disk) => {
            let mib = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
            match mib < mib_min {
                false => report.ok(name, format!("{mib} MiB free at {path}")),
                true => report.failed(
                    name,
                    format!("{mib} MiB free at {path}: at least {mib_min} MiB are needed"),
                ),
            }
        }
        // The Engine is on another machine, or this user cannot access the directory.
        Err(error) => report.skipped(name, format!("{path}: {error}")),
    }
}
