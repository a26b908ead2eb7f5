//! Free disk space.

use std::path::Path;

use super::report::Report;
use crate::{config::Config, disk::free_mib};

/// A store of a million jobs is smaller.
const STORE_MIB_MIN: u64 = 1024;
/// GitHub's runner image takes about 2 GB, and jobs write to their containers.
const DOCKER_MIB_MIN: u64 = 10 * 1024;

const DOCKER: &str = "Docker";

pub(super) fn check_store(config: &Config, report: &mut Report) {
    if config.database.is_some() {
        return;
    }
    // `serve` creates the store and its directories if they are missing.
    let existing = config.store.path.ancestors().skip(1).find(|it| it.exists());
    let directory = existing.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check(directory, "the store", STORE_MIB_MIN, "", report);
}

/// `here`: whether the Engine is on this machine.
pub(super) fn check_docker(directory: &Path, here: bool, reserve_mib: u64, report: &mut Report) {
    let unseen = match reserve_mib {
        0 => "",
        _ => {
            ". docker.reserve_disk_mib has no effect unless `serve` can see this directory: in a \
              container, mount it at the same path, read-only"
        }
    };
    match here {
        true => check(directory, DOCKER, DOCKER_MIB_MIN.max(reserve_mib), unseen, report),
        false => report.skipped(name(DOCKER), format!("the Engine is on another machine{unseen}")),
    }
}

fn name(whose: &str) -> String {
    format!("disk space of {whose}")
}

fn check(directory: &Path, whose: &str, mib_min: u64, unseen: &str, report: &mut Report) {
    let name = name(whose);
    let path = directory.display();
    match free_mib(directory) {
        Ok(mib) if mib < mib_min => {
            report.failed(
                name,
                format!("{mib} MiB free at {path}: at least {mib_min} MiB are needed"),
            );
        }
        Ok(mib) => report.ok(name, format!("{mib} MiB free at {path}")),
        // The Engine is on another machine, or this user cannot access the directory.
        Err(error) => report.skipped(name, format!("{path}: {error}{unseen}")),
    }
}
