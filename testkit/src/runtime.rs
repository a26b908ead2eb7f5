//! A container runtime for machines that may not raise limits.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Wraps runc where the machine lacks `CAP_SYS_RESOURCE`, which a privileged container
/// would request with all others.
const WRAPPER: &str = r#"#!/bin/sh
previous=
for argument in "$@"; do
    case $previous in
    --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g' "$argument/config.json" ;;
    --process) sed -i 's/"CAP_SYS_RESOURCE",//g' "$argument" ;;
    esac
    previous=$argument
done
exec runc "$@"
"#;

/// The path of a runtime that a Docker Engine needs for privileged containers on this machine,
/// written to this directory; `None` if its own does.
pub fn wrapper(directory: &Path) -> Result<Option<PathBuf>> {
    if may_raise_limits()? {
        return Ok(None);
    }
    let path = directory.join("runtime");
    std::fs::write(&path, WRAPPER)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(Some(path))
}

fn may_raise_limits() -> Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = u64::from_str_radix(bounds.context("no CapBnd")?.trim(), 16)?;
    Ok(bounds >> CAP_SYS_RESOURCE & 1 == 1)
}
