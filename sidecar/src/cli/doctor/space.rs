//! Room on disks.

use std::path::Path;

use super::report::Report;
use crate::config::Config;

/// A store of a million jobs takes less.
const STORE_MIB_MIN: u64 = 1024;
/// GitHub's image of the runner takes some 2 GB, and jobs write to their containers.
const DOCKER_MIB_MIN: u64 = 10 * 1024;

pub(super) fn look_at_store(config: &Config, report: &mut Report) {
    // It is made by `serve` if it is missing, with its directories.
    let existing = config.store.path.ancestors().skip(1).find(|it| it.exists());
    let directory = existing.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    look(directory, "the store", STORE_MIB_MIN, report);
}

pub(super) fn look_at_docker(directory: &Path, report: &mut Report) {
    look(directory, "Docker", DOCKER_MIB_MIN, report);
}

fn look(directory: &Path, whose: &str, mib_min: u64, report: &mut Report) {
    let check = format!("disk of {whose}");
    let place = directory.display();
    match rustix::fs::statvfs(directory) {
        Ok(disk) => {
            let mib = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
            match mib < mib_min {
                false => report.ok(check, format!("{mib} MiB free at {place}")),
                true => report.failed(
                    check,
                    format!("{mib} MiB free at {place}: make room for {mib_min} MiB at least"),
                ),
            }
        }
        // An Engine on another machine, or a directory that is not for this user.
        Err(error) => report.skipped(check, format!("{place}: {error}")),
    }
}
